import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taskrobust.loss import MultiTaskLoss
from taskrobust.risk import TaskLosses, pool_ranks


@dataclass(frozen=True)
class Evaluation:
    """Risks on held-out data.

    Args:
        risks: Mean loss of each task of which there was an element.
        mean: Mean over the weighted tasks, in the units in which the criterion compares them.
        worst: Largest risk of a weighted task in these units; infinite if one is not a number.
        worst_task: That task.
    """

    risks: dict[str, float]
    mean: float
    worst: float
    worst_task: str


@torch.no_grad()
def evaluate(
    model: nn.Module,
    criterion: MultiTaskLoss,
    batches: Iterable[tuple[Mapping[str, Tensor], bool]],
    autocast: Any,
    device: Any,
) -> Evaluation:
    """Pool the losses of all batches of all ranks, so that the result does not depend on how they were cut.

    Args:
        model: Returns ``TaskLosses`` for a batch.
        criterion: Names the tasks and their units.
        batches: This rank's batches, keyword arguments of the model, and whether each counts. A batch that does not
            count lets a rank that has fewer join the others' forward pass, which a sharded model needs.
        autocast: Makes the context in which the model runs.
        device: Where it runs.

    Raises:
        ValueError: If no weighted task had an element.
    """
    training = model.training
    model.eval()
    losses = [torch.zeros(2, len(criterion.tasks), device=device)]
    for batch, counts_in in batches:
        with autocast():
            part = model(**{name: value.to(device, non_blocking=True) for name, value in batch.items()})
        if counts_in:
            losses.append(torch.stack(part.detach()))
    model.train(training)
    total = torch.stack(losses).cpu().double().sum(0).float().to(device)
    sums, counts = pool_ranks(TaskLosses(*total.unbind()))
    values = zip(criterion.tasks, (sums / counts).tolist(), counts.tolist(), strict=True)
    risks = {task: risk for task, risk, count in values if count > 0}
    units = zip(criterion.weighted_tasks, criterion.risk.comparable_unit().tolist(), strict=True)
    weighted = {task: risks[task] / unit for task, unit in units if task in risks}
    if not weighted:
        raise ValueError(f"Expected held-out elements of one of {list(criterion.weighted_tasks)}, got none.")
    badness = {task: math.inf if math.isnan(risk) else risk for task, risk in weighted.items()}
    worst_task = max(badness, key=lambda task: badness[task])
    return Evaluation(risks, sum(weighted.values()) / len(weighted), badness[worst_task], worst_task)
