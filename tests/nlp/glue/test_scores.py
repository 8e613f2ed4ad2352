from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from taskrobust.nlp.glue.scores import METRICS, GlueScores, score
from taskrobust.nlp.glue.tasks import GLUE

TRIES = range(20)


def f1(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    right = np.sum(predictions * labels)
    return float(2 * right / (2 * right + np.sum(predictions != labels)))


def correlation(predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(np.corrcoef(predictions, labels)[0, 1])


BY_HAND = {
    "accuracy": lambda predictions, labels: np.mean(predictions == labels),
    "f1": f1,
    "matthews": correlation,  # equal to Pearson's for two binary variables
    "pearson": correlation,
    "spearman": lambda predictions, labels: correlation(rankdata(predictions), rankdata(labels)),
}


def drawn(metric: str, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    number = int(rng.integers(10, 500))
    if metric in ("pearson", "spearman"):
        labels = rng.integers(0, 26, number) / 5.0  # with ties
        return labels + rng.normal(scale=2, size=number).round(1), labels
    labels = (rng.random(number) < rng.uniform(0.2, 0.8)).astype(np.int64)
    return np.where(rng.random(number) < 0.3, 1 - labels, labels), labels


@pytest.mark.parametrize("seed", TRIES)
@pytest.mark.parametrize("metric", BY_HAND)
def test_metrics_are_those_of_their_formulas(metric: str, seed: int) -> None:
    predictions, labels = drawn(metric, seed)
    assert score(metric, predictions, labels) == pytest.approx(BY_HAND[metric](predictions, labels), abs=1e-9)


@pytest.mark.parametrize("metric", ["f1", "matthews", "pearson", "spearman"])
def test_constant_predictions_score_zero(metric: str) -> None:
    labels = np.array([0, 1, 1, 0])
    assert score(metric, np.zeros(4), labels) == 0
    assert score(metric, np.zeros(4), np.zeros(4)) == 0


def test_nearly_constant_predictions_raise_no_warning() -> None:
    predictions = 3 + np.array([0, 1e-16, 4e-16, 8e-16])
    assert -1 <= score("pearson", predictions, np.array([1.0, 2.0, 3.0, 4.0])) <= 1


@pytest.mark.parametrize("task", ["cola", "qqp", "stsb", "mnli"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_scores_do_not_depend_on_the_batches(task: str, size: int) -> None:
    metrics = GLUE[task].metrics
    predictions, labels = drawn(metrics[0], seed=3)
    scores = GlueScores(GLUE[task])
    for start in range(0, len(labels), size):
        model: Any = SimpleNamespace(predictions=torch.tensor(predictions[start : start + size]))
        scores.update(model, {"labels": torch.tensor(labels[start : start + size])})
    assert scores.compute() == {metric: score(metric, predictions, labels) for metric in metrics}


def test_scores_are_over_the_examples_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, labels = drawn("spearman", seed=5)
    other = (predictions[7:], labels[7:])

    def all_gather_object(ranks: list[Any], own: Any) -> None:
        ranks[:] = [own, other, (np.empty(0), np.empty(0))]  # the third rank had no batch

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    monkeypatch.setattr("torch.distributed.all_gather_object", all_gather_object)
    scores = GlueScores(GLUE["stsb"])
    model: Any = SimpleNamespace(predictions=torch.tensor(predictions[:7]))
    scores.update(model, {"labels": torch.tensor(labels[:7])})
    assert scores.compute() == {metric: score(metric, predictions, labels) for metric in ("spearman", "pearson")}


def test_rank_without_a_batch_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def all_gather_object(ranks: list[Any], own: Any) -> None:
        given.append(own)
        ranks[:] = [own, (np.array([1.0, 0.0]), np.array([1.0, 1.0]))]

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather_object", all_gather_object)
    assert GlueScores(GLUE["rte"]).compute() == {"accuracy": 0.5}
    assert [len(column) for column in given[0]] == [0, 0]


def test_metrics_of_all_tasks_are_known() -> None:
    assert {metric for task in GLUE.values() for metric in task.metrics} == set(METRICS) == set(BY_HAND)


def test_headlines_are_those_of_the_paper() -> None:
    assert {name: task.metrics[0] for name, task in GLUE.items()} == {
        "cola": "matthews",
        "sst2": "accuracy",
        "mrpc": "f1",
        "qqp": "f1",
        "stsb": "spearman",
        "mnli": "accuracy",
        "qnli": "accuracy",
        "rte": "accuracy",
    }
