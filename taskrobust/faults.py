"""Losses and weights that cannot be: counted on the device, and errors where it is read."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from taskrobust._state import FixedTensor, StatefulModule
from taskrobust.outputs import TaskLosses
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
        excess: Whether the strategy gets excess risks, which are 0 or more whatever the losses.
        on_nonfinite: Whether a loss that is not finite is an error.
    """

    nonfinite: Tensor
    outside: Tensor
    weights: Tensor

    def __init__(self, tasks: Sequence[str], weighting: Weighting, excess: bool, on_nonfinite: OnNonfinite) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.strategy = type(weighting).__name__
        self.signed = weighting.signed
        self._bounds = _bounds(weighting, excess)
        self.on_nonfinite = on_nonfinite
        self._register_state()

    def initial_state(self) -> Mapping[str, Tensor]:
        """None."""
        return {name: torch.zeros(len(self.tasks), dtype=torch.int64) for name in ("nonfinite", "outside", "weights")}

    def record_losses(self, losses: TaskLosses, weighted: int) -> Tensor:
        """Whether all losses are finite, shape []. Raises on the CPU, where they can be read at once.

        Args:
            losses: The losses, also those of a reference model.
            weighted: Number of tasks that the strategy weights.
        """
        fine = _possible(losses.counts) & losses.sums.isfinite()
        if losses.reference is not None:
            fine = fine & losses.reference.isfinite()
        outside = None
        if self._bounds is not None:
            own = losses.first(weighted)
            outside = (own.counts > 0) & (own.sums < self._bounds.on(own.sums.device) * own.counts)
        return self._record(fine, outside)

    def record_counts(self, counts: Tensor) -> Tensor:
        """Whether element counts are possible, shape []. Raises on the CPU."""
        return self._record(_possible(counts), None)

    def _record(self, fine: Tensor, outside: Tensor | None) -> Tensor:
        finite = fine.all()
        if _is_read_at_once(fine) and finite and (outside is None or not outside.any()):
            return finite
        self.nonfinite.add_(~fine)
        if outside is not None:
            self.outside[: len(outside)].add_(outside)
        if _is_read_at_once(fine):
            self.check()
        return finite

    def record_weights(self, weights: Tensor, finite: Tensor) -> None:
        """Look at the weights of a step whose losses are ``finite``. Raises on the CPU."""
        fine = weights.isfinite() if self.signed else (weights >= 0) & (weights < math.inf)
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
            smallest = "" if self.signed else " of 0 or more"
            raise ValueError(
                f"Expected {self.strategy}.weights to return finite numbers{smallest}, got others for {weights}."
            )
        if outside:
            assert self._bounds is not None
            bounds = sorted({f"{self._bounds.values[self.tasks.index(task)]:g}" for task in outside})
            raise ValueError(
                f"Expected losses of {' and '.join(bounds)} or more, which {self.strategy} needs, got others for "
                f"{outside}. "
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


def _bounds(weighting: Weighting, excess: bool) -> FixedTensor | None:
    """The smallest risk of each weighted task, None without bounds."""
    smallest, number = weighting.smallest_risk, weighting.num_tasks
    bounds = smallest if isinstance(smallest, Sequence) else [smallest] * number
    if not excess:
        return FixedTensor(bounds) if max(bounds) > -math.inf else None
    if max(bounds) > 0:
        raise ValueError(
            f"Expected a weighting of excess risks, which may be 0, got {type(weighting).__name__} for risks of "
            f"{max(bounds):g} or more."
        )
    return None


def _possible(counts: Tensor) -> Tensor:
    return (counts >= 0) & (counts < math.inf)


def _is_read_at_once(values: Tensor) -> bool:
    """Whether Python may look at values, since it waits for nothing."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
