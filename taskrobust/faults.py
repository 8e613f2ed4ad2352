"""Losses and weights that cannot be: counted on the device, and errors where it is read."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from taskrobust._state import StatefulModule
from taskrobust.weighting.base import Weighting

OnNonfinite = Literal["raise", "skip"]


class NonFiniteLossError(FloatingPointError):
    """The loss of a task is NaN or infinite.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> try:
        ...     MultiTaskLoss(["noun", "verb"])({"noun": torch.tensor(torch.nan), "verb": torch.tensor(1.0)})
        ... except NonFiniteLossError as error:
        ...     print(str(error)[:72])
        Expected finite losses, got NaN, infinity or a count below 0 for ['noun'
    """


class Faults(StatefulModule):
    """Counts of losses and weights that cannot be, per task.

    Args:
        tasks: Names of the tasks, those of the weighting first.
        weighting: The strategy.
        on_nonfinite: Whether a loss that is not finite is an error.
    """

    nonfinite: Tensor
    outside: Tensor
    weights: Tensor

    def __init__(self, tasks: Sequence[str], weighting: Weighting, on_nonfinite: OnNonfinite) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.strategy = type(weighting).__name__
        self.bound = weighting.smallest_risk
        self.on_nonfinite = on_nonfinite
        self._register_state()

    def initial_state(self) -> Mapping[str, Tensor]:
        """None."""
        return {name: torch.zeros(len(self.tasks), dtype=torch.int64) for name in ("nonfinite", "outside", "weights")}

    def record_losses(self, counts: Tensor, sums: Tensor | None, weighted: int) -> Tensor:
        """Whether all losses are finite, shape []. Raises on the CPU, where they can be read at once.

        Args:
            counts: Element counts, shape [T].
            sums: Sums of losses, shape [T], if they are known.
            weighted: Number of tasks that the strategy weights.
        """
        fine = (counts >= 0) & (counts < math.inf)
        outside = None
        if sums is not None:
            fine = fine & sums.isfinite()
            if self.bound > -math.inf:
                outside = ((counts > 0) & (sums < self.bound * counts))[:weighted]
        finite = fine.all()
        if _is_read_at_once(counts) and finite and (outside is None or not outside.any()):
            return finite
        self.nonfinite.add_(~fine)
        if outside is not None:
            self.outside[:weighted].add_(outside)
        if _is_read_at_once(counts):
            self.check()
        return finite

    def record_weights(self, weights: Tensor, finite: Tensor) -> None:
        """Look at the weights of a step whose losses are ``finite``. Raises on the CPU."""
        fine = (weights >= 0) & (weights < math.inf)
        if _is_read_at_once(weights) and fine.all():
            return
        self.weights[: len(weights)].add_(~fine & finite)
        if _is_read_at_once(weights):
            self.check()

    def check(self) -> None:
        """Raise if there was a fault since the last call; see ``MultiTaskLoss.check_finite``."""
        weights, outside, nonfinite = (
            self._tasks_of(counts) for counts in (self.weights, self.outside, self.nonfinite)
        )
        self.weights.zero_()
        self.outside.zero_()
        if weights:
            raise ValueError(
                f"Expected {self.strategy}.weights to return finite numbers of 0 or more, got others for {weights}."
            )
        if outside:
            raise ValueError(
                f"Expected losses of {self.bound:g} or more, which {self.strategy} needs, got others for {outside}. "
                "Use another weighting, or add a constant to the losses of these tasks."
            )
        if nonfinite and self.on_nonfinite == "raise":
            self.nonfinite.zero_()
            raise NonFiniteLossError(
                f"Expected finite losses, got NaN, infinity or a count below 0 for {nonfinite}. Look at the inputs and "
                "the learning rate of these tasks. A mean over no elements is NaN: give None for an absent task, or "
                "sums and counts. on_nonfinite='skip' skips such steps."
            )

    def _tasks_of(self, counts: Tensor) -> list[str]:
        return [task for task, count in zip(self.tasks, counts.tolist(), strict=True) if count]


def _is_read_at_once(values: Tensor) -> bool:
    """Whether Python may look at values, since it waits for nothing."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
