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
        mean: Mean over the weighted tasks.
        worst: Largest risk of a weighted task.
        worst_task: That task.
    """

    risks: dict[str, float]
    mean: float
    worst: float
    worst_task: str


@torch.no_grad()
def evaluate(
    model: nn.Module, criterion: MultiTaskLoss, batches: Iterable[Mapping[str, Tensor]], autocast: Any, device: Any
) -> Evaluation:
    """Pool the losses of all batches of all ranks, so that the result does not depend on how they were cut.

    Args:
        model: Returns ``TaskLosses`` for a batch.
        criterion: Names the tasks.
        batches: This rank's batches, keyword arguments of the model.
        autocast: Makes the context in which the model runs.
        device: Where it runs.

    Raises:
        ValueError: If no weighted task had an element.
    """
    training = model.training
    model.eval()
    total = torch.zeros(2, len(criterion.tasks), dtype=torch.float64, device=device)
    for batch in batches:
        with autocast():
            losses = model(**{name: value.to(device, non_blocking=True) for name, value in batch.items()})
        total += torch.stack(losses.detach())
    model.train(training)
    sums, counts = pool_ranks(TaskLosses(*total.unbind()))
    values = zip(criterion.tasks, (sums / counts).tolist(), counts.tolist(), strict=True)
    risks = {task: risk for task, risk, count in values if count > 0}
    weighted = {task: risk for task, risk in risks.items() if task in criterion.weighted_tasks}
    if not weighted:
        raise ValueError(f"Expected held-out elements of one of {list(criterion.weighted_tasks)}, got none.")
    worst_task = max(weighted, key=lambda task: weighted[task])
    return Evaluation(risks, sum(weighted.values()) / len(weighted), weighted[worst_task], worst_task)
