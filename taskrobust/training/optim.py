import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from taskrobust.training.config import OptimConfig


def make_optimizer(
    model: nn.Module, weighting: nn.Module, config: OptimConfig, depth_of: Callable[[str], int] | None = None
) -> AdamW:
    r"""Fused AdamW over the model's matrices, its vectors without decay, and the parameters of the weighting.

    .. math:: \mathrm{lr}_l = \mathrm{lr} \cdot \text{layer\_decay}^{\,l_{\max} - l}

    Args:
        model: The model, whose parameters with ``requires_grad`` are trained.
        weighting: The criterion, whose parameters are all trained.
        config: Learning rates and decays.
        depth_of: Depth l of a parameter of the model, by its name. None uses one rate for all.

    Raises:
        ValueError: If ``layer_decay`` is not 1 and ``depth_of`` is None.
    """
    if depth_of is None and config.layer_decay != 1:
        raise ValueError(f"Expected layer_decay 1 for a model whose layers are unknown, got {config.layer_decay}.")
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layers.setdefault(0 if depth_of is None else depth_of(name), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for depth, parameters in sorted(layers.items()):
        lr = config.lr * config.layer_decay ** (max(layers) - depth)
        matrices, vectors = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
        groups.append({"params": matrices, "weight_decay": config.weight_decay, "lr": lr})
        groups.append({"params": vectors, "weight_decay": 0.0, "lr": lr})
    groups.append({"params": list(weighting.parameters()), "weight_decay": 0.0, "lr": config.weighting_lr})
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int) -> LRScheduler:
    """The learning rate schedule over ``steps`` steps."""
    warmup_steps = round(config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * steps)
    falling_steps = max(1, steps - warmup_steps)

    def share(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        if config.schedule == "linear":
            return max(0, steps - step) / falling_steps
        if config.schedule == "constant":
            return 1.0
        least = config.min_lr / config.lr
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / falling_steps))
        return cosine * (1 - least) + least

    return LambdaLR(optimizer, share)


class WeightAverage:
    r"""Running average of a model's parameters, in a copy of the model.

    .. math:: \bar\theta_k = \bar\theta_{k-1} + c_k (\theta_k - \bar\theta_{k-1}), \qquad c_1 = 1

    Same as ``torch.optim.swa_utils.AveragedModel`` without its synchronization at every step.

    Args:
        model: The model.
        decay: :math:`1 - c_k`. None uses :math:`c_k = 1/k`, the mean over all steps.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the parameters of a step."""
        self.steps += 1
        change = 1 / self.steps if self.decay is None or self.steps == 1 else 1 - self.decay
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), change)

    def state_dict(self) -> dict[str, Any]:
        """The averaged model and the number of steps."""
        return {"module": self.module.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore an average."""
        self.module.load_state_dict(state["module"])
        self.steps = state["steps"]


def make_average(model: nn.Module, config: OptimConfig) -> WeightAverage | None:
    """The running average of the model's parameters, or None if it is disabled."""
    if config.average == "none":
        return None
    return WeightAverage(model, config.ema_decay if config.average == "ema" else None)
