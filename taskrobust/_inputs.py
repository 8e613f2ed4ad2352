"""The forms in which ``MultiTaskLoss`` accepts the losses of a batch."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from taskrobust.outputs import Outputs, TaskLosses

MeanLoss = Tensor | tuple[Tensor, Tensor | int] | None
"""Mean loss of a task, shape [], alone or with its number of elements. None for an absent task."""

Losses = TaskLosses | Outputs | Mapping[str, MeanLoss] | Tensor


def as_task_losses(losses: Losses, tasks: Sequence[str], device: torch.device, counts_for: str | None) -> TaskLosses:
    """Losses in any form as ``TaskLosses``.

    Args:
        losses: The losses.
        tasks: Names of the tasks in their order.
        device: Where the losses must be.
        counts_for: The strategy or risk estimator that needs the number of elements of each mean, if any.

    Raises:
        ValueError: If the losses are not those of the tasks.
    """
    if isinstance(losses, Outputs):
        losses = losses.losses
    if isinstance(losses, Tensor):
        if losses.shape != (len(tasks),):
            raise ValueError(
                f"Expected mean losses of shape {[len(tasks)]} for the tasks {list(tasks)}, got {list(losses.shape)}."
            )
        losses = dict(zip(tasks, losses.unbind(), strict=True))
    if isinstance(losses, Mapping):
        losses = _from_means(losses, tasks, device, counts_for)
    elif not isinstance(losses, TaskLosses):
        raise ValueError(
            "Expected TaskLosses, Outputs, a mapping of task name to mean loss, or a tensor of mean losses, got "
            f"{type(losses).__name__}."
        )
    _check(losses, tuple(tasks), device)
    return losses


def _from_means(
    means: Mapping[str, MeanLoss], tasks: Sequence[str], device: torch.device, counts_for: str | None
) -> TaskLosses:
    if set(means) != set(tasks):
        raise ValueError(f"Expected one loss for each of the tasks {list(tasks)}, got losses for {list(means)}.")
    sums: dict[str, tuple[Tensor, Tensor | int] | None] = {}
    for task in tasks:
        value = means[task]
        mean, count = value if isinstance(value, tuple) else (value, 1)
        if mean is None:
            sums[task] = None
            continue
        if not isinstance(mean, Tensor):
            raise ValueError(f"Expected a tensor as mean loss of the task {task!r}, got {type(mean).__name__}.")
        if mean.dim() != 0:
            shape = list(mean.shape)
            raise ValueError(f"Expected a mean loss of shape [] for the task {task!r}, got shape {shape}.")
        if counts_for is not None and not isinstance(value, tuple):
            raise ValueError(
                f"Expected the number of elements behind each mean loss, which {counts_for} needs, got a mean alone "
                f"for {task!r}. Give TaskLosses, or pairs {{task: (mean, count)}}."
            )
        if isinstance(count, Tensor):
            sums[task] = torch.where(count > 0, mean * count, 0), count
        elif count == 0:
            sums[task] = None
        else:
            sums[task] = mean if count == 1 else mean * count, count
    return TaskLosses.from_sums(sums, device)


def _check(losses: TaskLosses, tasks: tuple[str, ...], device: torch.device) -> None:
    shape = (len(tasks),)
    if losses.sums.shape != shape or losses.counts.shape != shape:
        raise ValueError(
            f"Expected sums and counts of shape {list(shape)} for the tasks {list(tasks)}, got "
            f"{list(losses.sums.shape)} and {list(losses.counts.shape)}."
        )
    if losses.tasks is not None and losses.tasks != tasks:
        raise ValueError(f"Expected losses of the tasks {list(tasks)} in this order, got {list(losses.tasks)}.")
    if losses.counts.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"Expected counts as integers or float32, got {losses.counts.dtype}, which rounds 1001 to 1000. Return "
            "integer counts: mixed precision does not cast them."
        )
    if losses.sums.device != device:
        raise ValueError(
            f"Expected losses on {device}, where the criterion is, got {losses.sums.device}. "
            f"Call criterion.to({str(losses.sums.device)!r})."
        )
