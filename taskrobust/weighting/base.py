import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from taskrobust._state import TaskModule


class Weighting(TaskModule, ABC):
    """Computes how much each task counts in a step from the tasks' risks.

    A strategy is a subclass with :meth:`weights`; its constructor takes settings. ``MultiTaskLoss`` tells it the tasks
    (``self.tasks``, ``self.num_tasks``), masks absent ones, scales the weights to a common sum and pools risks over
    ranks before it calls a strategy, which therefore sees the same numbers on every rank.

    One that remembers something returns its state before the first step from :meth:`initial_state` and changes it in
    :meth:`update`, in place and without a branch on its values. Then ``state_dict`` into a new object resumes exactly,
    a step never waits for the device, and ``torch.compile`` sees one graph.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> class Worst(Weighting):
        ...     def weights(self, risks, counts):
        ...         present = risks.masked_fill(counts <= 0, -torch.inf)
        ...         return (present == present.max()).float()
        >>> criterion = MultiTaskLoss(["noun", "verb"], Worst())
        >>> criterion({"noun": torch.tensor(3.0), "verb": torch.tensor(1.0)})
        tensor(3.)
    """

    needs_gramian: ClassVar[bool] = False
    """Whether the strategy uses the inner products of the tasks' gradients, see :meth:`observe`."""

    needs_counts: ClassVar[bool] = False
    """Whether mean losses without their counts are not enough."""

    smallest_risk: float = -math.inf
    """Smaller risks are errors that name the task."""

    @abstractmethod
    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Weights of the tasks in the scale of the strategy's paper, shape [T], not negative. Changes no state.

        Args:
            risks: Risks of the tasks, shape [T], float32, detached. Those of absent tasks are arbitrary.
            counts: Numbers of elements behind them, shape [T]. 0 for an absent task, whose weight is ignored.
        """

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Learn from the risks of a step. Called once per step in training, after :meth:`weights`.

        Args:
            risks: As in :meth:`weights`.
            counts: As in :meth:`weights`.
        """

    def observe(self, gramian: Tensor) -> None:
        """Learn the tasks' gradients, if ``needs_gramian``.

        Called before :meth:`weights`, but in an accumulation window after it, at its end: weights that follow from the
        gradients are one step late there.

        Args:
            gramian: Inner products of the gradients of the risks with respect to the shared tensors, shape [T, T]. The
                diagonal holds squared norms.
        """

    def end_epoch(self) -> None:
        """Learn that an epoch is over, from ``MultiTaskLoss.end_epoch``."""

    def own_loss(self, risks: Tensor, share: Tensor) -> Tensor | None:
        """Scalar whose gradient trains the strategy's own parameters, None if there are none.

        Must be linear in ``risks`` and ``share`` together, so that the parts of an accumulation window add up.

        Args:
            risks: This batch's part of the risks, shape [T], detached.
            share: This batch's share of the tasks' elements, shape [T]: 1 outside of accumulation, 0 for an absent
                task.
        """
        return None


def masked_softmax(values: Tensor, counts: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Softmax of ``scale`` times the values over the tasks that are present, 0 for the others. Shape [T].

    The largest value is subtracted before the product, which may overflow where the result does not.
    """
    present = counts > 0
    largest = values.masked_fill(~present, -torch.inf).max()
    logits = scale * torch.where(present, values - largest, 0)
    return torch.where(present, logits.masked_fill(~present, -torch.inf).softmax(0), 0)


def masked_mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean over the tasks that are present. Shape []."""
    present = counts > 0
    return (torch.where(present, values, 0) / present.sum().clamp(min=1)).sum()
