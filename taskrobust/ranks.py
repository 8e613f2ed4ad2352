"""The ranks that share a batch."""

import torch
import torch.distributed as dist
from torch import Tensor

from taskrobust.outputs import TaskLosses


class Ranks:
    """A process group, or all processes, or the only one.

    Copies share the group. Pickling drops it, since it exists in this process only.

    Args:
        group: The process group. None is all ranks, or one process without torch.distributed.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group

    @property
    def size(self) -> int:
        """Number of ranks."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def pool(self, losses: TaskLosses) -> TaskLosses:
        """Losses of the union of the ranks' batches, detached, by one all-reduce of 2T floats, 3T with a reference."""
        losses = losses.detach()
        if self.size == 1:
            return losses
        if losses.reference is None:
            sums, counts = self.sum(torch.stack([losses.sums, losses.counts])).unbind()
            return TaskLosses(sums, counts, losses.tasks)
        sums, counts, reference = self.sum(torch.stack([losses.sums, losses.counts, losses.reference])).unbind()
        return TaskLosses(sums, counts, losses.tasks, reference)

    def __deepcopy__(self, memo: dict[int, object]) -> "Ranks":
        return self

    def __reduce__(self) -> tuple[type["Ranks"], tuple[()]]:
        return Ranks, ()


def pool_ranks(losses: TaskLosses, process_group: dist.ProcessGroup | None = None) -> TaskLosses:
    """Losses of the union of all ranks' batches, detached float32. Called by all ranks.

    Args:
        losses: Losses of this rank.
        process_group: The ranks that share a batch. None is all.

    Example:
        >>> losses = TaskLosses(torch.tensor([6.0, 1.0]), torch.tensor([2, 1]))
        >>> pool_ranks(losses).counts  # of one process
        tensor([2., 1.])
    """
    return Ranks(process_group).pool(losses)
