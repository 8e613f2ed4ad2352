from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Weighting(nn.Module, ABC):
    """Says how much each task counts in a step, given the tasks' risks.

    A strategy is a subclass with :meth:`weights`. One that remembers something keeps it in buffers or parameters made
    in ``__init__``, so that ``state_dict`` into a fresh object resumes exactly, and changes them in :meth:`update`, in
    place and without a branch on their values, so that a step never waits for the device and ``torch.compile`` sees one
    graph.

    ``MultiTaskLoss`` masks absent tasks, scales the weights to a common sum and pools risks over ranks before it calls
    a strategy; a strategy sees the same numbers on every rank.

    Args:
        num_tasks: Number of tasks T.
    """

    needs_gramian: ClassVar[bool] = False
    """Whether the strategy wants the inner products of the tasks' gradients, see :meth:`observe`."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        if num_tasks < 1:
            raise ValueError(f"Expected at least one task, got num_tasks={num_tasks}.")
        self.num_tasks = num_tasks

    @abstractmethod
    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Weights of the tasks in the scale of the strategy's paper, shape [T], not negative. Changes no state.

        Args:
            risks: Risks of the tasks, shape [T], float32, detached. The values of absent tasks mean nothing.
            counts: Numbers of elements behind them, shape [T]. 0 for an absent task, whose weight is ignored.
        """

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Learn from the risks of a step. Called once a step in training, after :meth:`weights`.

        Args:
            risks: As in :meth:`weights`.
            counts: As in :meth:`weights`.
        """

    def observe(self, gramian: Tensor) -> None:
        """Take in the tasks' gradients. Called before :meth:`weights` if ``needs_gramian``.

        Args:
            gramian: Inner products of the gradients of the risks with respect to the shared tensors, shape [T, T]. The
                diagonal holds squared norms.
        """

    def end_epoch(self) -> None:
        """Learn that an epoch is over. Called by the training loop."""

    def own_loss(self, risks: Tensor, share: Tensor) -> Tensor | None:
        """Scalar whose gradient trains the strategy's own parameters, None if there are none.

        Must be linear in ``risks`` and ``share`` together, so that the parts of an accumulation window add up.

        Args:
            risks: This batch's part of the risks, shape [T], detached.
            share: This batch's share of the tasks' elements, shape [T]: 1 outside of accumulation, 0 for an absent
                task.
        """
        return None


def masked_softmax(logits: Tensor, counts: Tensor) -> Tensor:
    """Softmax over the tasks that are present, 0 for the others. Shape [T]."""
    present = counts > 0
    return torch.where(present, logits.masked_fill(~present, -torch.inf).softmax(0), 0)


def masked_mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean over the tasks that are present. Shape []."""
    present = counts > 0
    return torch.where(present, values, 0).sum() / present.sum().clamp(min=1)
