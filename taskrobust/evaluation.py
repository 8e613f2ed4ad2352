"""Risks on held-out data."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from taskrobust.loss import MultiTaskLoss
from taskrobust.outputs import TaskLosses


@dataclass(frozen=True)
class Evaluation:
    """Risks on held-out data, from :func:`evaluate`.

    Example:
        >>> Evaluation({"noun": 2.0, "verb": 1.0}, mean=1.5, worst=2.0, worst_task="noun").worst_task
        'noun'

    Args:
        risks: Mean loss of each task that had an element.
        mean: Mean over the weighted tasks of the risks that the criterion compares: minus a reference that does not
            change, in their units.
        worst: Largest of these risks; infinite if one is not a number.
        worst_task: That task.
    """

    risks: dict[str, float]
    mean: float
    worst: float
    worst_task: str


@torch.no_grad()
def evaluate(
    model: Callable[..., Any],
    criterion: MultiTaskLoss,
    batches: Iterable[Any],
    pool: bool = True,
    reference: Callable[..., Any] | None = None,
) -> Evaluation:
    """Risks over all batches of all ranks, which do not depend on how the data were cut into batches.

    Nothing is learned. The ranks communicate once, at the end, so that they may have different numbers of batches.

    Example:
        >>> criterion = MultiTaskLoss(["noun", "verb"])
        >>> batches = [TaskLosses(torch.tensor([6.0, 1.0]), torch.tensor([2, 1])),
        ...            TaskLosses(torch.tensor([0.0, 4.0]), torch.tensor([1, 4]))]
        >>> evaluate(lambda batch: batch, criterion, batches)
        Evaluation(risks={'noun': 2.0, 'verb': 1.0}, mean=1.5, worst=2.0, worst_task='noun')

    Args:
        model: Returns the losses of a batch in a form that the criterion accepts. A module is in evaluation mode
            meanwhile.
        criterion: Names the tasks and their units.
        batches: This rank's batches. The model is called with a mapping as keyword arguments, with a tuple or list as
            positional ones, and with anything else as it is.
        pool: Whether all ranks call this, each with its share of the data. Otherwise this rank evaluates by itself.
        reference: The reference model of ``ModelReference``, called like the model. Without it, the mean and the worst
            risk are not excess risks.

    Raises:
        ValueError: If no weighted task had an element.
    """
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    if isinstance(model, nn.Module):
        model.eval()
    parts = []
    try:
        for batch in batches:
            losses = criterion.as_task_losses(_call(model, batch)).detach()
            part = [losses.sums, losses.counts]
            if reference is not None:
                part.append(criterion.as_task_losses(_call(reference, batch)).detach().sums)
            parts.append(torch.stack(part))
    finally:
        for module, training in modes:
            module.training = training
    device, rows = criterion.skipped.device, 2 if reference is None else 3
    parts.append(torch.zeros(rows, len(criterion.tasks), device=device))
    total = torch.stack(parts).cpu().double().sum(0)  # which some devices cannot
    sums, counts, *references = total.float().to(device).unbind()
    own = TaskLosses(sums, counts, None, *references)
    return summarize(criterion.ranks.pool(own) if pool else own, criterion)


def _call(model: Callable[..., Any], batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def summarize(losses: TaskLosses, criterion: MultiTaskLoss) -> Evaluation:
    """Risks from the pooled losses of an evaluation.

    Raises:
        ValueError: If no weighted task had an element.
    """
    values = zip(criterion.tasks, (losses.sums / losses.counts).tolist(), losses.counts.tolist(), strict=True)
    risks = {task: risk for task, risk, count in values if count > 0}
    of_weighted_tasks = losses.first(len(criterion.weighted_tasks))
    compared = criterion.risk.compared(of_weighted_tasks, over_time=True).tolist()
    weighted = {task: risk for task, risk in zip(criterion.weighted_tasks, compared, strict=True) if task in risks}
    if not weighted:
        raise ValueError(f"Expected held-out elements of one of {list(criterion.weighted_tasks)}, got none.")
    badness = {task: math.inf if math.isnan(risk) else risk for task, risk in weighted.items()}
    worst_task = max(badness, key=lambda task: badness[task])
    return Evaluation(risks, sum(weighted.values()) / len(weighted), badness[worst_task], worst_task)
