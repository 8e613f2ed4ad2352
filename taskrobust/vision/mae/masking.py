"""Random choice of the patches that the encoder sees: drawn on the device, identical on every device."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from taskrobust._random import random_bits, shift_right, uniform

Budget = Literal["dirichlet", "uniform", "fixed"]

# Purposes of the random numbers of a sample.
_SHARES, _ORDER, _REPAIR = range(3)

_TRIES: Final = 16
"""Tries for a gamma variate. Each succeeds with a probability of 0.95 or more."""

_NEVER: Final = -1e30


class Masks(NamedTuple):
    """Visible and masked patches of B samples with M maps of L patches.

    Attributes:
        visible: Ascending indices into the M · L patches, int64 [B, V].
        masked: All the others, bool [B, M, L].
    """

    visible: Tensor
    masked: Tensor


class TokenBudget:
    r"""Divides the visible patches of a sample among its maps and draws them at random.

    A map gets :math:`k_m = \mathrm{round}(V p_m)` patches. If these do not add up to V, random patches are removed or
    added. Maps that a sample lacks get none; the others get more.

    The draw depends on the sample's key alone, not on the batch, the process or the device.

    Example:
        >>> masks = TokenBudget(visible=8)(torch.tensor([1, 2]), torch.ones(2, 3, dtype=torch.bool), patches=16)
        >>> masks.visible.shape, masks.masked.shape
        (torch.Size([2, 8]), torch.Size([2, 3, 16]))

    Args:
        visible: Visible patches V per sample.
        budget: The shares :math:`p`. "dirichlet" draws them from a symmetric Dirichlet distribution, "uniform" draws V
            of all patches at once, "fixed" uses ``proportions``.
        concentration: Parameter of the Dirichlet distribution. 1 makes all shares equally likely; larger values make
            them more even, smaller values give most patches to one map.
        proportions: Shares of the maps for "fixed", in their order; their sum does not matter.

    Raises:
        ValueError: If the settings are invalid.

    References:
        Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022, section 3.2.
        Marsaglia, Tsang, A Simple Method for Generating Gamma Variables, ACM TOMS 2000.
    """

    def __init__(
        self,
        visible: int = 98,
        budget: Budget = "dirichlet",
        concentration: float = 1.0,
        proportions: Sequence[float] | None = None,
    ) -> None:
        if visible < 1:
            raise ValueError(f"Expected one or more visible patches, got {visible}.")
        if budget not in get_args(Budget):
            raise ValueError(f"Expected a budget among {list(get_args(Budget))}, got {budget!r}.")
        if not concentration > 0:
            raise ValueError(f"Expected a concentration above 0, got {concentration}.")
        if (budget == "fixed") != (proportions is not None):
            expected = "proportions" if budget == "fixed" else "no proportions"
            raise ValueError(f"Expected {expected} with the budget {budget!r}, got {proportions}.")
        if proportions is not None and min(proportions) <= 0:
            raise ValueError(f"Expected proportions above 0, got {list(proportions)}.")
        self.visible = visible
        self.budget = budget
        self.concentration = concentration
        self.proportions = proportions

    def __repr__(self) -> str:
        settings = f"visible={self.visible}, budget={self.budget!r}"
        if self.budget == "dirichlet":
            settings += f", concentration={self.concentration}"
        if self.proportions is not None:
            settings += f", proportions={list(self.proportions)}"
        return f"TokenBudget({settings})"

    def __call__(self, keys: Tensor, present: Tensor, patches: int) -> Masks:
        """Draw the visible patches.

        Args:
            keys: Random 64 bits per sample, int64 [B].
            present: Which maps each sample has, at least one, bool [B, M].
            patches: Patches L of a map, V or more.
        """
        batch, maps = present.shape
        order = random_bits(random_bits(keys, _ORDER)[:, None], _counters(maps * patches, keys))
        order = order.view(batch, maps, patches).argsort(dim=-1)
        chosen = torch.arange(patches, device=keys.device) < self._numbers(keys, present, patches)[..., None]

        # Chosen patches come first, those of missing maps last, each group in random order; the first V are visible.
        group = torch.where(present[..., None], 1 - chosen.long(), 2)
        repair = random_bits(random_bits(keys, _REPAIR)[:, None], _counters(maps * patches, keys))
        ranked = (group << 61) + shift_right(repair, 3).view_as(group)
        first = ranked.flatten(1).argsort(dim=-1)[:, : self.visible]
        offsets = torch.arange(maps, device=keys.device)[:, None] * patches
        visible = (order + offsets).flatten(1).gather(1, first).sort(dim=-1).values
        masked = torch.ones(batch, maps * patches, dtype=torch.bool, device=keys.device).scatter_(1, visible, False)
        return Masks(visible, masked.view(batch, maps, patches))

    def _numbers(self, keys: Tensor, present: Tensor, patches: int) -> Tensor:
        """Patches of each map before they are made to add up, [B, M]."""
        if self.budget == "uniform":
            return torch.full_like(present, patches, dtype=torch.float64)
        if self.budget == "dirichlet":
            weights = _log_gamma_variates(random_bits(keys, _SHARES), present.shape[1], self.concentration)
        else:
            assert self.proportions is not None
            columns = [torch.full_like(keys, share, dtype=torch.float64) for share in self.proportions]
            weights = torch.stack(columns, dim=1).log()
        return (self.visible * weights.where(present, _NEVER).softmax(dim=1)).round()


def _counters(number: int, like: Tensor) -> Tensor:
    return torch.arange(number, device=like.device)


def _log_gamma_variates(keys: Tensor, number: int, shape: float) -> Tensor:
    """Logarithms of gamma variates, [B, number]: the softmax of them is a Dirichlet variate.

    Args:
        keys: Random 64 bits for each row, [B].
        number: How many of each.
        shape: Parameter of the distribution.
    """
    keys = random_bits(keys[:, None], _counters(number, keys))
    if shape == 1:
        return (-uniform(keys).log()).log()
    # Marsaglia and Tsang, for a shape of 1 or more; the boost below takes it down.
    d = (shape + 1 if shape < 1 else shape) - 1 / 3
    draws = uniform(random_bits(keys[..., None], _counters(3 * _TRIES, keys))).view(*keys.shape, 3, _TRIES)
    normal = (-2 * draws[:, :, 0].log()).sqrt() * (2 * torch.pi * draws[:, :, 1]).cos()
    v = (1 + normal / (9 * d) ** 0.5).clamp(min=1e-6) ** 3
    accepted = draws[:, :, 2].log() < normal**2 / 2 + d - d * v + d * v.log()
    first = accepted.to(torch.uint8).argmax(dim=-1, keepdim=True)
    log_variate: Tensor = (d * v.gather(-1, first).squeeze(-1)).log()
    if shape < 1:
        log_variate = log_variate + uniform(random_bits(keys, 3 * _TRIES)).log() / shape
    return log_variate
