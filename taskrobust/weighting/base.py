import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from taskrobust._state import TaskModule


class Weighting(TaskModule, ABC):
    """Computes the weights of the tasks in a step from their risks.

    A strategy is a subclass that implements :meth:`weights` and accepts its settings in the constructor.
    ``MultiTaskLoss`` sets the tasks (``self.tasks``, ``self.num_tasks``), masks absent tasks, scales the weights to a
    common sum, and pools the risks over ranks before calling the strategy, so that all ranks compute the same weights.

    A stateful strategy returns its initial state from :meth:`initial_state` and modifies it in :meth:`update`, in place
    and without branching on its values. This way, loading a ``state_dict`` resumes exactly, steps do not synchronize
    with the device, and ``torch.compile`` produces a single graph.

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

    needs_gramian: bool = False
    """Whether the strategy requires the inner products of the tasks' gradients, see :meth:`observe`."""

    needs_conflicts: ClassVar[bool] = False
    """Whether the strategy requires the inner products of different tasks, which ``DisjointRows`` do not have."""

    signed: ClassVar[bool] = False
    """Whether weights may be negative. Their absolute values then have the ``weight_sum``."""

    needs_counts: ClassVar[bool] = False
    """Whether the strategy requires the counts of the mean losses."""

    smallest_risk: float | Sequence[float] = -math.inf
    """Smallest allowed risk, or that of each task. Smaller ones raise an error that names the task."""

    @abstractmethod
    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the weights of the tasks, without changing the state.

        Args:
            risks: Detached risks of the tasks, shape [T], float32. Those of absent tasks are arbitrary.
            counts: Number of elements per task, shape [T]. 0 for absent tasks, whose weights are ignored.

        Returns:
            Weights in the scale of the strategy's paper, shape [T], nonnegative unless ``signed``.
        """

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Update the state from the risks of a step. Called once per training step, after :meth:`weights`.

        Args:
            risks: See :meth:`weights`.
            counts: See :meth:`weights`.
        """

    def observe(self, gramian: Tensor) -> None:
        """Receive the Gram matrix of the tasks' gradients if ``needs_gramian`` is set.

        Called before :meth:`weights`. With gradient accumulation, it is called after :meth:`weights` at the end of the
        window, so that weights that depend on gradients lag by one step.

        Args:
            gramian: Inner products of the gradients of the risks with respect to the shared tensors, shape [T, T]. The
                diagonal contains the squared norms.
        """

    def end_epoch(self) -> None:
        """Handle the end of an epoch. Called by ``MultiTaskLoss.end_epoch``."""

    def own_loss(self, risks: Tensor, share: Tensor) -> Tensor | None:
        """Compute a scalar whose gradient trains the parameters of the strategy, or None if it has no parameters.

        It must be jointly linear in ``risks`` and ``share``, so that the parts of an accumulation window can be summed.

        Args:
            risks: Part of this batch in the risks, shape [T], detached.
            share: Share of this batch in the tasks' elements, shape [T]. 1 without accumulation, 0 for absent tasks.
        """
        return None


def masked_softmax(values: Tensor, counts: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Compute the softmax of the scaled values over the present tasks.

    The largest value is subtracted before scaling, since the product could overflow even if the result does not.

    Args:
        values: Values of the tasks, shape [T].
        counts: Number of elements per task, shape [T]. 0 for absent tasks.
        scale: Factor of the values.

    Returns:
        Softmax, 0 for absent tasks, shape [T].
    """
    present = counts > 0
    largest = values.masked_fill(~present, -torch.inf).max()
    logits = scale * torch.where(present, values - largest, 0)
    return torch.where(present, logits.masked_fill(~present, -torch.inf).softmax(0), 0)


def masked_mean(values: Tensor, counts: Tensor) -> Tensor:
    """Compute the mean over the present tasks, shape [].

    Args:
        values: Values of the tasks, shape [T].
        counts: Number of elements per task, shape [T]. 0 for absent tasks.
    """
    present = counts > 0
    return (torch.where(present, values, 0) / present.sum().clamp(min=1)).sum()
