"""The risk of each task, its mean loss: estimated over elements, ranks and time."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from taskrobust._state import FixedTensor, TaskModule
from taskrobust.outputs import TaskLosses

Normalization = Literal["none", "initial", "ema", "chance", "static"]


class RiskEstimator(TaskModule):
    r"""Estimates the risks that weights are computed from, and the unit in which they are measured.

    The running risk of a task is a mean over the elements of the past batches that held any, in which a batch that lies
    k such batches back counts :math:`\beta^k`. A batch with few elements of a task therefore says little about it, and
    a batch without any is passed over:

    .. math:: r_t = \frac{\sum_k \beta^k S_{t,k}}{\max(\sum_k \beta^k N_{t,k}, n_\min)}

    Risks are divided by a reference for each task, both where weights are computed and in the loss, since softmax
    weights are not comparable between units.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(smoothing=0.5))
        >>> for noun in (4.0, 1.0):
        ...     _ = criterion({"noun": torch.tensor(noun), "verb": torch.tensor(2.0)})
        >>> criterion.risk.running()  # of nouns (0.5 * 4 + 1) / (0.5 + 1)
        tensor([2., 2.])

    Args:
        smoothing: :math:`\beta` in [0, 1). 0 uses the risks of the current batch.
        min_count: :math:`n_\min`. The risk of a task with fewer elements is shrunk towards zero.
        normalization: The unit of risk. ``none``: that of the loss. ``initial``: the task's mean risk over
            its first ``reference_steps`` batches. ``ema``: the task's own slow mean with decay ``reference_decay``, so
            that a risk says how the task does compared with its recent past. ``chance``: :math:`\log C_t`, the
            cross-entropy of a guess among :math:`C_t` classes, given in ``reference``. ``static``: the values given in
            ``reference``.
        reference: One number per task: :math:`C_t` for ``chance``, the unit for ``static``.
        reference_steps: Batches with a task that make its ``initial`` reference.
        reference_decay: Decay per step of the ``ema`` reference.

    Raises:
        ValueError: If a setting is out of its range.
    """

    sums: Tensor
    counts: Tensor
    reference_sums: Tensor
    reference_counts: Tensor
    reference_batches: Tensor

    def __init__(
        self,
        smoothing: float = 0.0,
        min_count: float = 0.0,
        normalization: Normalization = "none",
        reference: Sequence[float] | None = None,
        reference_steps: int = 1,
        reference_decay: float = 0.999,
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"Expected smoothing in [0, 1), got {smoothing}.")
        if not 0 <= reference_decay < 1:
            raise ValueError(f"Expected reference_decay in [0, 1), got {reference_decay}.")
        if not 0 <= min_count < math.inf or reference_steps < 1:
            raise ValueError(
                f"Expected min_count >= 0 and reference_steps >= 1, got {min_count} and {reference_steps}."
            )
        if normalization not in get_args(Normalization):
            raise ValueError(f"Expected a normalization among {list(get_args(Normalization))}, got {normalization!r}.")
        self.smoothing = smoothing
        self.min_count = min_count
        self.normalization = normalization
        self.reference = reference
        self.reference_steps = reference_steps
        self.reference_decay = reference_decay
        self._check_reference()

    def _check_reference(self) -> None:
        needed = self.normalization in ("chance", "static")
        if needed != (self.reference is not None):
            expected = "a reference of one value per task" if needed else "no reference"
            raise ValueError(f"Expected {expected} with normalization {self.normalization!r}, got {self.reference}.")
        smallest = 1.0 if self.normalization == "chance" else 0.0
        if self.reference is not None and not all(smallest < value < math.inf for value in self.reference):
            raise ValueError(
                f"Expected a reference of values above {smallest:g} with normalization {self.normalization!r}, got "
                f"{list(self.reference)}."
            )

    def setup(self, tasks: Sequence[str]) -> Self:
        """Make the state for these tasks; see ``TaskModule.setup``."""
        super().setup(tasks)
        reference = self.per_task("reference", default=1.0)
        chance = self.normalization == "chance"
        self._fixed_unit = FixedTensor([math.log(c) for c in reference.values]) if chance else reference
        return self

    def initial_state(self) -> Mapping[str, Tensor]:
        """Nothing seen."""
        names = ("sums", "counts", "reference_sums", "reference_counts", "reference_batches")
        return {name: torch.zeros(self.num_tasks) for name in names}

    @torch.no_grad()
    def update(self, pooled: TaskLosses) -> None:
        """Learn from the losses of a step, pooled over ranks and micro-batches."""
        present = pooled.counts > 0
        decay = torch.where(present, self.smoothing, 1)
        self.sums.mul_(decay).add_(pooled.sums)
        self.counts.mul_(decay).add_(pooled.counts)
        if self.normalization == "ema":
            decay = torch.where(present, self.reference_decay, 1)
            self.reference_sums.mul_(decay).add_(pooled.sums)
            self.reference_counts.mul_(decay).add_(pooled.counts)
        elif self.normalization == "initial":
            learns = present & (self.reference_batches < self.reference_steps)
            self.reference_sums.add_(torch.where(learns, pooled.sums, 0))
            self.reference_counts.add_(torch.where(learns, pooled.counts, 0))
            self.reference_batches.add_(learns.float())

    @torch.no_grad()
    def unit(self) -> Tensor:
        """The reference that risks are divided by, shape [T]. 1 for a task whose mean is not known or not positive."""
        if self.normalization in ("initial", "ema"):
            mean = self.reference_sums / self.denominators(self.reference_counts)
            return torch.where(mean > 0, mean, 1)
        return self._fixed_unit.on(self.sums.device)

    def comparable_unit(self) -> Tensor:
        """The unit in which tasks are compared over time, shape [T]: that of ``ema``, which moves with them, is 1."""
        return torch.ones_like(self.sums) if self.normalization == "ema" else self.unit()

    @torch.no_grad()
    def running(self) -> Tensor:
        """Running risks in their units, shape [T]. A task that was not seen yet has the mean of those that were."""
        risks = self.sums / self.denominators(self.counts) / self.unit()
        seen = self.counts > 0
        mean_of_seen = torch.where(seen, risks, 0).sum() / seen.sum().clamp(min=1)
        return torch.where(seen, risks, mean_of_seen)

    def denominators(self, counts: Tensor) -> Tensor:
        """The divisors of sums over ``counts`` elements: no less than ``min_count``, and never 0."""
        return torch.where(counts > 0, counts, 1).clamp(min=self.min_count)
