"""Optimizers that skip a step on the device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


def guard(optimizer: Optimizer, finite: Callable[[], Tensor]) -> RemovableHandle:
    """Make an optimizer skip its step where ``finite()`` is False; see ``MultiTaskLoss.guard``."""
    ours: list[Tensor] = []  # the flag of the step before, which optimizers keep

    def before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        flag = finite()
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            found = (~flag).float()
            scalers = getattr(optimizer, "found_inf", None)
            if scalers is not None and not any(scalers is tensor for tensor in ours):
                found = torch.maximum(found, scalers)
            ours[:] = [found]
            optimizer.found_inf = found
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.device.type == "cpu":
                    parameter.grad = parameter.grad if flag else None
                else:
                    parameter.grad.copy_(torch.where(flag, parameter.grad, 0))

    return optimizer.register_step_pre_hook(before_step)
