"""Losses of a batch of several tasks, and the outputs of a model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree


class DisjointRows(NamedTuple):
    """A shared activation of which each row is read by one task only, such as the hidden states of masked tokens.

    The gradients of all tasks then come from one backward pass to the activation instead of T.

    Example:
        >>> hidden = torch.randn(5, 8, requires_grad=True)
        >>> rows = DisjointRows(hidden, owner=torch.tensor([0, 0, 1, 1, 2]))

    Attributes:
        activation: Shared activation, shape [M, ...], in the graph of the losses.
        owner: Index of the task that reads each row, shape [M]. Rows with an index of T or more belong to no task.
    """

    activation: Tensor
    owner: Tensor


Shared = Tensor | Sequence[Tensor] | DisjointRows
"""Parameters of the last shared layer, or an activation after it: one form or the other, not a mixture. Where
parameters are sharded (FSDP), the activation."""


@dataclass(frozen=True, eq=False)
class TaskLosses:
    """The losses of a batch: for each task the sum of its element losses, and their number.

    Means cannot be pooled over ranks and micro-batches of different sizes, sums and counts can. ``TaskLosses`` is to T
    losses what ``num_items_in_batch`` is to one. It is a pytree, so that DDP, FSDP and ``torch.compile`` pass it on.

    Example:
        >>> losses = TaskLosses.from_elements({"rgb": torch.rand(8, 98), "depth": torch.rand(5, 98)})
        >>> losses.counts
        tensor([784, 490])
        >>> (losses + losses).counts
        tensor([1568,  980])

    Args:
        sums: Sums of the element losses, shape [T], differentiable. 0 for a task that is absent from the batch.
        counts: Numbers of elements behind the sums, shape [T], integers or float32. 0 for an absent task.
        tasks: Names of the tasks, which ``MultiTaskLoss`` compares with its own. None where the order says it all.
        reference: Sums of the losses of a reference model on the same elements, shape [T], for ``ModelReference``.
    """

    sums: Tensor
    counts: Tensor
    tasks: tuple[str, ...] | None = None
    reference: Tensor | None = None

    @staticmethod
    def from_elements(losses: Mapping[str, Tensor | None], device: torch.device | None = None) -> "TaskLosses":
        """Losses from the element losses of each task.

        Args:
            losses: Losses of the elements of each task by name, any shape. None for an absent task.
            device: Where the result lies if all tasks are absent.
        """
        return TaskLosses.from_sums(
            {task: None if part is None else (part.float().sum(), part.numel()) for task, part in losses.items()},
            device,
        )

    @staticmethod
    def from_sums(
        losses: Mapping[str, tuple[Tensor, Tensor | int] | None], device: torch.device | None = None
    ) -> "TaskLosses":
        """Losses from the sum and the count of each task.

        Example:
            >>> TaskLosses.from_sums({"noun": (torch.tensor(6.0), 2), "verb": None}).sums
            tensor([6., 0.])

        Args:
            losses: Sum of the element losses, shape [], and their number, by name of the task. None for an absent task.
            device: Where the result lies if all tasks are absent.

        Raises:
            ValueError: If a sum or a count is not one number.
        """
        present = {task: part for task, part in losses.items() if part is not None}
        for task, (part, count) in present.items():
            if part.dim() != 0 or (isinstance(count, Tensor) and count.dim() != 0):
                shapes = [list(value.shape) if isinstance(value, Tensor) else value for value in (part, count)]
                raise ValueError(f"Expected a sum and a count of shape [] for the task {task!r}, got {shapes}.")
        for part, _ in present.values():
            device = part.device
        absent = (torch.zeros((), device=device), 0)
        sums, counts = zip(*(present.get(task, absent) for task in losses), strict=True)
        # Numbers become tensors on the device by a fill, for which nothing waits.
        tensors = [c if isinstance(c, Tensor) else torch.full((), c, device=device) for c in counts]
        if any(count.is_floating_point() for count in tensors):
            tensors = [count.float() for count in tensors]
        return TaskLosses(torch.stack([part.float() for part in sums]), torch.stack(tensors), tuple(losses))

    @staticmethod
    def grouped(losses: Tensor, groups: Tensor, num_groups: int) -> "TaskLosses":
        """One task per group of elements, such as domains, classes or parts of speech.

        Example:
            >>> losses = TaskLosses.grouped(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 1]), num_groups=3)
            >>> losses.sums.tolist(), losses.counts.tolist()
            ([1.0, 6.0, 0.0], [1, 2, 0])

        Args:
            losses: Losses of the elements, any shape.
            groups: Group of each element, integers of the same shape, or of its leading dimensions: one group per
                sample, say. Elements with a group outside of [0, ``num_groups``) count nowhere.
            num_groups: Number of groups T.

        Raises:
            ValueError: If the shapes do not fit.
        """
        if losses.shape[: groups.dim()] != groups.shape:
            raise ValueError(
                f"Expected groups of the shape {list(losses.shape)} of the losses, or of its leading dimensions, got "
                f"{list(groups.shape)}."
            )
        groups = groups.reshape(groups.shape + (1,) * (losses.dim() - groups.dim())).expand(losses.shape).flatten()
        owned = groups == torch.arange(num_groups, device=groups.device)[:, None]
        # Unlike index_add on CUDA, this adds in a fixed order.
        return TaskLosses(losses.flatten().float().where(owned, 0).sum(1), owned.sum(1))

    def detach(self) -> "TaskLosses":
        """The same values in float32, cut from the graph."""
        reference = None if self.reference is None else self.reference.detach().float()
        return TaskLosses(self.sums.detach().float(), self.counts.detach().float(), self.tasks, reference)

    def with_reference(self, reference: "TaskLosses") -> "TaskLosses":
        """The same losses beside those of a reference model on the same elements, see ``ModelReference``.

        ``criterion(losses, reference=...)`` does it. Use it for the first pass of an accumulation window.

        Raises:
            ValueError: If the counts differ. Checked on the CPU, where it costs nothing.
        """
        counts = self.counts, reference.counts
        if counts[0].device.type == "cpu" and not torch.compiler.is_compiling() and not torch.equal(*counts):
            raise ValueError(
                f"Expected losses of the reference model on the same elements, whose counts are {counts[0].tolist()}, "
                f"got {counts[1].tolist()}."
            )
        return TaskLosses(self.sums, self.counts, self.tasks, reference.sums.detach())

    def first(self, number: int) -> "TaskLosses":
        """The losses of the first tasks."""
        tasks = None if self.tasks is None else self.tasks[:number]
        reference = None if self.reference is None else self.reference[:number]
        return TaskLosses(self.sums[:number], self.counts[:number], tasks, reference)

    def __add__(self, other: "TaskLosses") -> "TaskLosses":
        """Losses of the union of two batches."""
        if self.tasks is not None and other.tasks is not None and self.tasks != other.tasks:
            raise ValueError(f"Expected losses of the tasks {list(self.tasks)} to add, got {list(other.tasks)}.")
        if (self.reference is None) != (other.reference is None):
            raise ValueError("Expected the losses of a reference model in both batches or in none, got them in one.")
        reference = None
        if self.reference is not None and other.reference is not None:
            reference = self.reference + other.reference
        return TaskLosses(self.sums + other.sums, self.counts + other.counts, self.tasks or other.tasks, reference)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of a model: its losses, and optionally more. Pass it to the criterion: ``criterion(outputs)``.

    Example:
        >>> losses = TaskLosses(torch.tensor([6.0, 1.0]), torch.tensor([2, 1]))
        >>> Outputs(losses, predictions=torch.tensor([3, 0])).losses.counts
        tensor([2, 1])

    Args:
        losses: Losses of each task.
        shared: Shared parameters or activation, for strategies that need gradients.
        predictions: Predictions, detached.
    """

    losses: TaskLosses
    shared: Shared | None = None
    predictions: Any = None


def _task_losses(children: Iterable[Any], tasks: Any) -> TaskLosses:
    sums, counts, *reference = children
    return TaskLosses(sums, counts, tasks, *reference)


pytree.register_pytree_node(
    TaskLosses,
    lambda losses: (
        [losses.sums, losses.counts, *([] if losses.reference is None else [losses.reference])],
        losses.tasks,
    ),
    _task_losses,
    serialized_type_name="taskrobust.TaskLosses",
)
pytree.register_pytree_node(
    Outputs,
    lambda outputs: ([outputs.losses, outputs.shared, outputs.predictions], None),
    lambda children, _: Outputs(*children),
    serialized_type_name="taskrobust.Outputs",
)


def grouped_losses(
    logits: Tensor, labels: Tensor, groups: Tensor, num_groups: int, ignore_index: int = -100
) -> TaskLosses:
    r"""Cross-entropy of a classifier of tokens or samples, with one task per group of them.

    .. math:: S_g = \sum_{i:\, g_i = g} -\log p(y_i \mid x_i), \qquad N_g = |\{i : g_i = g\}|

    Data domains of a language model, attributes of images or classes of words become tasks. For a causal language model
    shift by one first: ``grouped_losses(logits[:, :-1], labels[:, 1:], domains, num_groups)``.

    Example:
        >>> logits, labels = torch.zeros(2, 3, 5), torch.tensor([[0, 1, -100], [2, 3, 4]])
        >>> grouped_losses(logits, labels, groups=torch.tensor([0, 1]), num_groups=2).counts
        tensor([2, 3])

    Args:
        logits: Scores of the C classes, shape [..., C].
        labels: Classes, int64, shape [...].
        groups: Groups, integers of the shape of ``labels`` or of its leading dimensions, such as [batch].
        num_groups: Number of groups.
        ignore_index: Label of elements that count nowhere.
    """
    elements = F.cross_entropy(
        logits.flatten(0, -2).float(), labels.flatten(), ignore_index=ignore_index, reduction="none"
    ).view_as(labels)
    groups = groups.reshape(groups.shape + (1,) * (labels.dim() - groups.dim())).expand(labels.shape)
    return TaskLosses.grouped(elements, groups.masked_fill(labels == ignore_index, num_groups), num_groups)


def pool_batches(losses: Iterable[TaskLosses | Outputs]) -> TaskLosses:
    """Losses of the union of several batches, detached float32.

    Example:
        >>> batch = TaskLosses(torch.tensor([6.0, 1.0]), torch.tensor([2, 1]))
        >>> pool_batches([batch, batch]).counts
        tensor([4., 2.])

    Raises:
        ValueError: If there is no batch.
    """
    pooled: TaskLosses | None = None
    for batch in losses:
        part = (batch.losses if isinstance(batch, Outputs) else batch).detach()
        pooled = part if pooled is None else pooled + part
    if pooled is None:
        raise ValueError("Expected one or more batches to pool, got none.")
    return pooled
