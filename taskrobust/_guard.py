"""Optimizers that skip a step on the device."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_SCALER_FOUND = "_found_inf_of_the_scaler"


class Guard:
    """Makes an optimizer skip a step if a loss since its last step was not finite; see ``MultiTaskLoss.guard``.

    Args:
        optimizer: The optimizer, or Accelerate's wrapper of it.
    """

    def __init__(self, optimizer: Any) -> None:
        inner: Optimizer = optimizer if isinstance(optimizer, Optimizer) else optimizer.optimizer
        inner = getattr(inner, "optimizer", inner)
        self.optimizer = inner
        self.finite: Tensor | None = None
        self._hooks = [inner.register_step_pre_hook(self._before), inner.register_step_post_hook(self._after)]

    def begin(self) -> None:
        """Forget losses whose gradients are gone: a gradient scaler skips steps without a call of the optimizer."""
        groups = self.optimizer.param_groups
        if all(parameter.grad is None for group in groups for parameter in group["params"]):
            self.finite = None

    def record(self, finite: Tensor) -> None:
        """Take the losses of a call into account."""
        self.finite = finite if self.finite is None else self.finite & finite

    def remove(self) -> None:
        """Leave the optimizer as it was."""
        for hook in self._hooks:
            hook.remove()

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if any(callable(argument) for argument in (*args[1:], *kwargs.values())):
            raise ValueError(
                "Expected optimizer.step() without a closure for a guarded optimizer, got one, whose losses come after "
                "the guard. Call backward before step."
            )
        if self.finite is None:
            return
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            before, found = getattr(optimizer, "found_inf", None), (~self.finite).float()
            if not hasattr(optimizer, _SCALER_FOUND):  # else another guard has put its flag there
                setattr(optimizer, _SCALER_FOUND, before)
            optimizer.found_inf = found if before is None else torch.maximum(found, before)
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.device.type == "cpu":
                    parameter.grad = parameter.grad if self.finite else None
                else:
                    parameter.grad.copy_(torch.where(self.finite, parameter.grad, 0))

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if hasattr(optimizer, _SCALER_FOUND):
            optimizer.found_inf = getattr(optimizer, _SCALER_FOUND)
            delattr(optimizer, _SCALER_FOUND)
            if optimizer.found_inf is None:
                del optimizer.found_inf
        self.finite = None
