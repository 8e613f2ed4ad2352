import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from taskrobust.loss import MultiTaskLoss
from taskrobust.risk import TaskLosses, pool_ranks


class Scores(Protocol):
    """What predictions are worth, such as an accuracy, made anew for each evaluation."""

    def update(self, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Take in a batch that has just passed through the model, which keeps what it predicted. No gradient."""

    def compute(self) -> dict[str, float]:
        """The scores by name, over the batches of all ranks. Called by all ranks, also by one that had no batch."""


@dataclass(frozen=True)
class Evaluation:
    """Risks on held-out data, and scores where there are any.

    Args:
        risks: Mean loss of each task of which there was an element.
        mean: Mean over the weighted tasks, in the units in which the criterion compares them.
        worst: Largest risk of a weighted task in these units; infinite if one is not a number.
        worst_task: That task.
        scores: What the predictions are worth, by name.
    """

    risks: dict[str, float]
    mean: float
    worst: float
    worst_task: str
    scores: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    criterion: MultiTaskLoss,
    batches: Iterable[tuple[Mapping[str, Tensor], bool]],
    autocast: Any,
    device: Any,
    scores: Scores | None = None,
) -> Evaluation:
    """Pool the losses of all batches of all ranks, so that the result does not depend on how they were cut.

    Args:
        model: Returns ``TaskLosses`` for a batch.
        criterion: Names the tasks and their units.
        batches: This rank's batches, keyword arguments of the model, and whether each counts. A batch that does not
            count lets a rank that has fewer join the others' forward pass, which a sharded model needs.
        autocast: Makes the context in which the model runs.
        device: Where it runs.
        scores: Takes in what the model predicts.

    Raises:
        ValueError: If no weighted task had an element.
    """
    training = model.training
    model.eval()
    losses = [torch.zeros(2, len(criterion.tasks), device=device)]
    for batch, counts_in in batches:
        on_device = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with autocast():
            part = model(**on_device)
        if counts_in:
            losses.append(torch.stack(part.detach()))
            if scores is not None:
                scores.update(model, on_device)
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
    mean = sum(weighted.values()) / len(weighted)
    return Evaluation(risks, mean, badness[worst_task], worst_task, {} if scores is None else scores.compute())
