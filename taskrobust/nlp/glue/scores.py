"""What GLUE predictions are worth."""

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
    """The value of a metric, larger being better; 0 where it is not defined, as of constant predictions.

    Args:
        metric: ``accuracy``, ``f1`` (of class 1), ``matthews``, ``pearson`` or ``spearman``.
        predictions: Class numbers or scores, [N].
        labels: The true ones, [N].
    """
    if metric in _CORRELATIONS and (np.ptp(predictions) == 0 or np.ptp(labels) == 0):
        return 0.0
    with warnings.catch_warnings(action="ignore", category=stats.DegenerateDataWarning):  # nearly constant
        value = float(_METRICS[metric](labels, predictions))
    return value if np.isfinite(value) else 0.0


_METRICS: Final[dict[str, Callable[[NDArray[Any], NDArray[Any]], float]]] = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda labels, predictions: metrics.f1_score(labels, predictions, zero_division=0),
    "matthews": metrics.matthews_corrcoef,
    "pearson": lambda labels, predictions: stats.pearsonr(labels, predictions).statistic,
    "spearman": lambda labels, predictions: stats.spearmanr(labels, predictions).statistic,
}


_CORRELATIONS: Final = ("matthews", "pearson", "spearman")


class GlueScores:
    """The metrics of a task over all examples of all ranks, whatever the batches.

    Args:
        task: Names the metrics.
    """

    def __init__(self, task: GlueTask) -> None:
        self.task = task
        self.predictions: list[Tensor] = []
        self.labels: list[Tensor] = []

    def update(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> None:
        """Add the predictions for a batch; they stay on the device."""
        self.predictions.append(outputs.predictions)
        self.labels.append(batch["labels"])

    def compute(self) -> dict[str, float]:
        """The metrics by name, the headline first. Called by every rank."""
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
