"""Metrics of GLUE predictions."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics
from torch import Tensor

from taskrobust.nlp.glue.tasks import GlueTask
from taskrobust.outputs import Outputs


def score(metric: str, predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    """Compute a metric. Larger is better; an undefined value, such as a correlation with a constant, counts as 0.

    Args:
        metric: A name in ``METRICS``.
        predictions: Class numbers or scores, [N].
        labels: True class numbers or scores, [N].
    """
    with warnings.catch_warnings(action="ignore"):  # about constant or nearly constant values
        value = float(METRICS[metric](labels, predictions))
    return value if np.isfinite(value) else 0.0


METRICS: Final[dict[str, Callable[[NDArray[Any], NDArray[Any]], float]]] = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda labels, predictions: metrics.f1_score(labels, predictions, zero_division=0),
    "matthews": metrics.matthews_corrcoef,
    "pearson": lambda labels, predictions: stats.pearsonr(labels, predictions).statistic,
    "spearman": lambda labels, predictions: stats.spearmanr(labels, predictions).statistic,
}
"""Functions of labels and predictions, [N] each, by the names that tasks use. ``f1`` is that of class 1."""


class GlueScores:
    """Accumulates the metrics of a task over the examples of all batches and ranks.

    Args:
        task: The task, which names the metrics.
    """

    def __init__(self, task: GlueTask) -> None:
        self.task = task
        self.predictions: list[Tensor] = []
        self.labels: list[Tensor] = []

    def update(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> None:
        """Add the predictions for a batch. They stay on the device."""
        self.predictions.append(outputs.predictions)
        self.labels.append(batch["labels"])

    def compute(self) -> dict[str, float]:
        """The metrics by name, the headline metric first. All ranks must call this."""
        own = (_joined(self.predictions), _joined(self.labels))
        ranks = [own]
        if dist.is_initialized():
            ranks *= dist.get_world_size()
            dist.all_gather_object(ranks, own)
        predictions, labels = (np.concatenate(column) for column in zip(*ranks, strict=True))
        return {metric: score(metric, predictions, labels) for metric in self.task.metrics}


def _joined(parts: list[Tensor]) -> NDArray[np.float64]:
    joined: NDArray[np.float64] = torch.cat([torch.empty(0).double(), *(part.double().cpu() for part in parts)]).numpy()
    return joined
