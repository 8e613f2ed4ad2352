"""The risk of each task, its mean loss: estimated over elements, ranks and time."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from taskrobust._state import FixedTensor, TaskModule
from taskrobust.outputs import TaskLosses
from taskrobust.reference import PowerLawReference, Reference

Normalization = Literal["none", "initial", "ema", "chance", "static"]
Excess = Literal["difference", "ratio"]


class RiskEstimator(TaskModule):
    r"""Estimates the risks that weights are computed from: their smoothing, their unit, and what to subtract.

    The running risk of a task is a mean over the elements of the past batches that held any, in which a batch that lies
    k such batches back counts :math:`\beta^k`. A batch with few elements of a task therefore says little about it, and
    a batch without any is passed over:

    .. math:: r_t = \frac{\sum_k \beta^k S_{t,k}}{\max(\sum_k \beta^k N_{t,k}, n_\min)}

    Risks are divided by a unit :math:`u_t` for each task, both where weights are computed and in the loss, since
    softmax weights are not comparable between units.

    With a reference :math:`\rho_t`, the risk that a model could reach, weights follow the excess risk

    .. math:: e_t = \frac{\max(r_t - \rho_t, 0)}{u_t},

    what is left to learn, rather than the risk, of which a noisy task keeps much whatever its weight. The loss and its
    gradient :math:`\sum_t w_t \nabla r_t / u_t` are those of the risks. Every strategy works on excess risks, except
    that ``Uncertainty`` learns its parameters from the risks. Strategies that divide by risks (``GeometricMean``,
    ``FAMO``) give most weight to a task that reaches its reference.

    Example:
        >>> from taskrobust import FixedReference, MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(smoothing=0.5))
        >>> for noun in (4.0, 1.0):
        ...     _ = criterion({"noun": torch.tensor(noun), "verb": torch.tensor(2.0)})
        >>> criterion.risk.running()  # of nouns (0.5 * 4 + 1) / (0.5 + 1)
        tensor([2., 2.])

        >>> risk = RiskEstimator(reference=FixedReference([1.5, 0.5]))
        >>> criterion = MultiTaskLoss(["noun", "verb"], risk=risk)
        >>> _ = criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.5)})
        >>> criterion.risk.running()
        tensor([0.5000, 1.0000])

    Args:
        smoothing: :math:`\beta` in [0, 1). 0 uses the risks of the current batch.
        min_count: :math:`n_\min`. The risk of a task with fewer elements is shrunk towards zero.
        normalization: The unit of risk. ``none``: that of the loss. ``initial``: the task's mean risk over
            its first ``unit_steps`` batches. ``ema``: the task's own slow mean with decay ``unit_decay``, so
            that a risk says how the task does compared with its recent past. ``chance``: :math:`\log C_t`, the
            cross-entropy of a guess among :math:`C_t` classes, given in ``units``. ``static``: the values given in
            ``units``.
        units: One number per task: :math:`C_t` for ``chance``, the unit for ``static``.
        unit_steps: Batches with a task that make its ``initial`` unit.
        unit_decay: Decay per step of the ``ema`` unit.
        reference: The risk of each task that excess risks are measured from. None uses the risks themselves.
        excess: ``difference`` as above. ``ratio``: relative to the reference, which is then the unit of risk.

    Raises:
        ValueError: If a setting is out of its range, or two settings exclude each other.
    """

    sums: Tensor
    counts: Tensor
    unit_sums: Tensor
    unit_counts: Tensor
    unit_batches: Tensor

    def __init__(
        self,
        smoothing: float = 0.0,
        min_count: float = 0.0,
        normalization: Normalization = "none",
        units: Sequence[float] | None = None,
        unit_steps: int = 1,
        unit_decay: float = 0.999,
        reference: Reference | None = None,
        excess: Excess = "difference",
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"Expected smoothing in [0, 1), got {smoothing}.")
        if not 0 <= unit_decay < 1:
            raise ValueError(f"Expected unit_decay in [0, 1), got {unit_decay}.")
        if not 0 <= min_count < math.inf or unit_steps < 1:
            raise ValueError(f"Expected min_count >= 0 and unit_steps >= 1, got {min_count} and {unit_steps}.")
        if normalization not in get_args(Normalization):
            raise ValueError(f"Expected a normalization among {list(get_args(Normalization))}, got {normalization!r}.")
        if excess not in get_args(Excess):
            raise ValueError(f"Expected excess among {list(get_args(Excess))}, got {excess!r}.")
        self.smoothing = smoothing
        self.min_count = min_count
        self.normalization = normalization
        self.units = units
        self.unit_steps = unit_steps
        self.unit_decay = unit_decay
        self.reference = reference
        self.excess = excess
        self._check_units()
        self._check_reference()

    def _check_units(self) -> None:
        needed = self.normalization in ("chance", "static")
        if needed != (self.units is not None):
            expected = "units, one value per task," if needed else "no units"
            raise ValueError(f"Expected {expected} with normalization {self.normalization!r}, got {self.units}.")
        smallest = 1.0 if self.normalization == "chance" else 0.0
        if self.units is not None and not all(smallest < value < math.inf for value in self.units):
            raise ValueError(
                f"Expected units above {smallest:g} with normalization {self.normalization!r}, got {list(self.units)}."
            )

    def _check_reference(self) -> None:
        if self.reference is not None and not isinstance(self.reference, Reference):
            raise ValueError(f"Expected a reference such as FixedReference([...]), got {self.reference!r}.")
        if self.excess == "difference":
            return
        if self.reference is None or self.normalization != "none":
            raise ValueError(
                "Expected a reference and normalization 'none' with excess 'ratio', whose unit is the reference, got "
                f"{self.reference!r} and {self.normalization!r}."
            )
        if isinstance(self.reference, PowerLawReference):
            raise ValueError(
                "Expected excess 'difference' with PowerLawReference, whose first values are 0, got 'ratio'."
            )

    @property
    def needs_reference_model(self) -> bool:
        """Whether each step has to pass the losses of a reference model."""
        return self.reference is not None and self.reference.needs_model

    def setup(self, tasks: Sequence[str]) -> Self:
        """Make the state for these tasks; see ``TaskModule.setup``."""
        super().setup(tasks)
        units = self.per_task("units", default=1.0)
        chance = self.normalization == "chance"
        self._fixed_unit = FixedTensor([math.log(c) for c in units.values]) if chance else units
        return self

    def initial_state(self) -> Mapping[str, Tensor]:
        """Nothing seen."""
        names = ("sums", "counts", "unit_sums", "unit_counts", "unit_batches")
        return {name: torch.zeros(self.num_tasks) for name in names}

    @torch.no_grad()
    def update(self, pooled: TaskLosses) -> None:
        """Learn from the losses of a step, pooled over ranks and micro-batches."""
        present = pooled.counts > 0
        decay = torch.where(present, self.smoothing, 1)
        self.sums.mul_(decay).add_(pooled.sums)
        self.counts.mul_(decay).add_(pooled.counts)
        if self.reference is not None:
            self.reference.update(pooled, decay)
        if self.normalization == "ema":
            decay = torch.where(present, self.unit_decay, 1)
            self.unit_sums.mul_(decay).add_(pooled.sums)
            self.unit_counts.mul_(decay).add_(pooled.counts)
        elif self.normalization == "initial":
            learns = present & (self.unit_batches < self.unit_steps)
            self.unit_sums.add_(torch.where(learns, pooled.sums, 0))
            self.unit_counts.add_(torch.where(learns, pooled.counts, 0))
            self.unit_batches.add_(learns.float())

    @torch.no_grad()
    def unit(self) -> Tensor:
        """The unit that risks are divided by, shape [T]. 1 for a task whose mean is not known or not positive."""
        if self.excess == "ratio":
            assert self.reference is not None
            mean = self.reference.risks(self.sums.device)
        elif self.normalization in ("initial", "ema"):
            mean = self.unit_sums / self.denominators(self.unit_counts)
        else:
            return self._fixed_unit.on(self.sums.device)
        return torch.where(mean > 0, mean, 1)

    @torch.no_grad()
    def running(self) -> Tensor:
        """Running risks, or excess risks, in their units, shape [T].

        A task that was not seen yet has the mean of those that were.
        """
        risks = self.in_units(self.sums, self.counts)
        seen = self.counts > 0
        mean_of_seen = torch.where(seen, risks, 0).sum() / seen.sum().clamp(min=1)
        return torch.where(seen, risks, mean_of_seen)

    def in_units(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Risks, or excess risks, of losses of the weighted tasks, in their units, shape [T].

        Args:
            sums: Sums of element losses, shape [T].
            counts: Numbers of elements, shape [T].
        """
        if self.reference is not None:
            sums = (sums - self.reference.risks(sums.device) * counts).clamp(min=0)
        return sums / self.denominators(counts) / self.unit()

    def compared(self, losses: TaskLosses, over_time: bool = False) -> Tensor:
        """Risks as they are compared with each other, shape [T]. NaN for an absent task.

        The reference is subtracted, without a bound at 0: that of the losses, or else that of this estimator. The
        result is in units of the risks, except for ``ema``, whose unit moves with them.

        Args:
            losses: Losses of the weighted tasks.
            over_time: Whether to compare with other times as well, where a reference that changes is left out.
        """
        risks = losses.sums / losses.counts
        reference = None
        if losses.reference is not None:
            reference = losses.reference / losses.counts
        elif self.reference is not None and (self.reference.constant or not over_time):
            reference = self.reference.risks(risks.device)
        if self.excess == "ratio":
            return risks if reference is None else risks / reference - 1
        difference = risks if reference is None else risks - reference
        return difference if self.normalization == "ema" else difference / self.unit()

    def denominators(self, counts: Tensor) -> Tensor:
        """The divisors of sums over ``counts`` elements: no less than ``min_count``, and never 0."""
        return torch.where(counts > 0, counts, 1).clamp(min=self.min_count)
