"""What each task's risk is now: sums and counts over elements, ranks and time."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

Normalization = Literal["none", "initial", "ema", "chance", "static"]


class TaskLosses(NamedTuple):
    """What a model returns for one batch: for each task the sum of its element losses and their number.

    Means cannot be pooled over ranks and micro-batches of different sizes; sums and counts can.

    Attributes:
        sums: Sums of the element losses, shape [T], differentiable. 0 for a task that is absent from the batch.
        counts: Numbers of elements behind the sums, shape [T]. 0 for a task that is absent from the batch.
    """

    sums: Tensor
    counts: Tensor

    @staticmethod
    def from_means(means: Mapping[str, Tensor | None], tasks: Sequence[str], device: torch.device) -> "TaskLosses":
        """Losses with a count of one for each task that has a mean.

        Args:
            means: Mean loss of each task, shape [], None for an absent one.
            tasks: The tasks in their order.
            device: Where the losses are.

        Raises:
            ValueError: If ``means`` are not those of the tasks.
        """
        if set(means) != set(tasks):
            raise ValueError(f"Expected one loss for each of the tasks {list(tasks)}, got losses for {list(means)}.")
        present = {task: mean for task, mean in means.items() if mean is not None}
        for task, mean in present.items():
            if not isinstance(mean, Tensor):
                raise ValueError(f"Expected a tensor as mean loss of the task {task!r}, got {type(mean).__name__}.")
            if mean.dim() != 0:
                shape = list(mean.shape)
                raise ValueError(f"Expected a mean loss of shape [] for the task {task!r}, got shape {shape}.")
        absent, one = torch.zeros((), device=device), torch.ones((), device=device)
        return TaskLosses(
            torch.stack([present.get(task, absent).float() for task in tasks]),
            torch.stack([one if task in present else absent for task in tasks]),
        )

    def detach(self) -> "TaskLosses":
        """The same values in float32, cut from the graph."""
        return TaskLosses(self.sums.detach().float(), self.counts.detach().float())


def pool_batches(losses: Iterable[TaskLosses]) -> TaskLosses:
    """Losses of the union of several batches, detached."""
    detached = [batch.detach() for batch in losses]
    return TaskLosses(sum(b.sums for b in detached), sum(b.counts for b in detached))  # type: ignore[arg-type]


def pool_ranks(losses: TaskLosses, process_group: dist.ProcessGroup | None = None) -> TaskLosses:
    """Losses of the union of all ranks' batches, detached, by one all-reduce of 2T floats."""
    if world_size(process_group) == 1:
        return losses.detach()
    buffer = torch.stack(losses.detach())
    dist.all_reduce(buffer, group=process_group)
    return TaskLosses(*buffer.unbind())


def world_size(process_group: dist.ProcessGroup | None = None) -> int:
    """Number of ranks that share a batch, 1 without torch.distributed."""
    return dist.get_world_size(process_group) if dist.is_available() and dist.is_initialized() else 1


def global_mean(losses: TaskLosses, pooled: TaskLosses, denominators: Tensor, ranks: int) -> Tensor:
    r"""Mean loss over all ranks that every rank can call ``backward`` on by itself.

    .. math:: r_t = \frac{\sum_r S_{t,r}}{N_t} + (S_t - \operatorname{detach}(S_t)) \frac{R}{N_t}

    The value is that of the union of all ranks' batches. The gradient is R times this rank's share of the global one,
    so that the mean over R ranks which DDP and FSDP take is the global gradient, and no differentiable collective is
    needed.

    Args:
        losses: Losses of this rank.
        pooled: Losses over all ranks, from ``pool_ranks``.
        denominators: :math:`N_t`, shape [T].
        ranks: :math:`R`.
    """
    sums = losses.sums.float()
    return pooled.sums / denominators + (sums - sums.detach()) * (ranks / denominators)


class RiskEstimator(nn.Module):
    r"""Estimates the risks that weights are computed from, and the unit in which they are measured.

    The running risk of a task is a mean over the elements of the past batches that held any, in which a batch that lies
    k such batches back counts :math:`\beta^k`. A batch with few elements of a task therefore says little about it, and
    a batch without any is passed over:

    .. math:: r_t = \frac{\sum_k \beta^k S_{t,k}}{\max(\sum_k \beta^k N_{t,k}, n_\min)}

    Risks are divided by a reference for each task, both where weights are computed and in the loss, since softmax
    weights are not comparable between units.

    Args:
        num_tasks: Number of tasks T.
        smoothing: :math:`\beta` in [0, 1). 0 takes the risks of the current batch.
        min_count: :math:`n_\min`. The risk of a task with fewer elements is shrunk towards zero.
        normalization: What one unit of risk is. ``none``: the loss's own unit. ``initial``: the task's mean risk over
            its first ``reference_steps`` batches. ``ema``: the task's own slow mean with decay ``reference_decay``, so
            that a risk says how the task does beside its recent past. ``chance``: :math:`\log C_t`, the cross-entropy
            of a guess among :math:`C_t` classes, given in ``reference``. ``static``: the values given in ``reference``.
        reference: One number for each task: :math:`C_t` for ``chance``, the unit for ``static``.
        reference_steps: Batches with a task that make its ``initial`` reference.
        reference_decay: Decay of the ``ema`` reference, a step.
    """

    sums: Tensor
    counts: Tensor
    reference_sums: Tensor
    reference_counts: Tensor
    reference_batches: Tensor
    fixed_reference: Tensor

    def __init__(
        self,
        num_tasks: int,
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
        if min_count < 0 or reference_steps < 1:
            raise ValueError(
                f"Expected min_count >= 0 and reference_steps >= 1, got {min_count} and {reference_steps}."
            )
        if normalization not in get_args(Normalization):
            raise ValueError(f"Expected a normalization among {list(get_args(Normalization))}, got {normalization!r}.")
        self.num_tasks = num_tasks
        self.smoothing = smoothing
        self.min_count = min_count
        self.normalization = normalization
        self.reference_steps = reference_steps
        self.reference_decay = reference_decay
        for name in ("sums", "counts", "reference_sums", "reference_counts", "reference_batches"):
            self.register_buffer(name, torch.zeros(num_tasks))
        self.register_buffer("fixed_reference", self._fixed_reference(reference), persistent=False)

    def _fixed_reference(self, reference: Sequence[float] | None) -> Tensor:
        needs_reference = self.normalization in ("chance", "static")
        if needs_reference != (reference is not None):
            expected = f"a reference of {self.num_tasks} values" if needs_reference else "no reference"
            raise ValueError(f"Expected {expected} with normalization {self.normalization!r}, got {reference}.")
        if reference is None:
            return torch.ones(self.num_tasks)
        smallest = 1.0 if self.normalization == "chance" else 0.0
        if len(reference) != self.num_tasks or min(reference) <= smallest:
            raise ValueError(
                f"Expected a reference of {self.num_tasks} values above {smallest:g} with normalization "
                f"{self.normalization!r}, got {list(reference)}."
            )
        return torch.tensor([math.log(r) if self.normalization == "chance" else r for r in reference])

    @torch.no_grad()
    def update(self, pooled: TaskLosses) -> None:
        """Let one batch, pooled over ranks and micro-batches, pass into the past."""
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
        return self.fixed_reference

    def comparable_unit(self) -> Tensor:
        """The unit in which tasks are compared over time, shape [T]: that of ``ema``, which moves with them, is 1."""
        return torch.ones_like(self.fixed_reference) if self.normalization == "ema" else self.unit()

    @torch.no_grad()
    def running(self) -> Tensor:
        """Running risks in their units, shape [T]. A task that was not seen yet takes the mean of those that were."""
        risks = self.sums / self.denominators(self.counts) / self.unit()
        seen = self.counts > 0
        mean_of_seen = torch.where(seen, risks, 0).sum() / seen.sum().clamp(min=1)
        return torch.where(seen, risks, mean_of_seen)

    def denominators(self, counts: Tensor) -> Tensor:
        """What sums of ``counts`` elements are divided by: no less than ``min_count``, and never 0."""
        return torch.where(counts > 0, counts, 1).clamp(min=self.min_count)
