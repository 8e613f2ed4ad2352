from collections.abc import Iterable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from taskrobust import MultiTaskLoss, RiskEstimator, TaskLosses
from taskrobust.training.evaluation import Evaluation, evaluate

VALUES = torch.randn(64, generator=torch.Generator().manual_seed(0)) ** 2
TASKS = torch.arange(64) % 5 % 3  # 26, 25 and 13 elements


class Model(nn.Module):
    """The loss of an element is its value; dropout shows whether the model is in training."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, values: Tensor, tasks: Tensor) -> TaskLosses:
        assert not torch.is_grad_enabled()
        owned = tasks == torch.arange(4)[:, None]
        return TaskLosses(torch.where(owned, self.dropout(values), 0).sum(1), owned.sum(1))


def criterion() -> MultiTaskLoss:
    return MultiTaskLoss(["noun", "verb", "rare"], auxiliary={"nsp": 1.0})


def cut(*sizes: int) -> Iterator[dict[str, Tensor]]:
    for values, tasks in zip(VALUES.split(list(sizes)), TASKS.split(list(sizes)), strict=True):
        yield {"values": values, "tasks": tasks}


def evaluated(batches: Iterable[dict[str, Tensor]], model: nn.Module | None = None) -> Evaluation:
    return evaluate(
        model or Model(), criterion(), [(batch, True) for batch in batches], nullcontext, torch.device("cpu")
    )


@pytest.mark.parametrize("sizes", [(64,), (1,) * 64, (3, 50, 11), (10, 0, 54)])
def test_risks_are_means_over_all_elements_however_they_are_cut(sizes: tuple[int, ...]) -> None:
    expected = {name: VALUES[task == TASKS].mean().item() for task, name in enumerate(["noun", "verb", "rare"])}
    evaluation = evaluated(cut(*sizes))
    assert evaluation.risks == pytest.approx(expected, rel=1e-6)
    assert evaluation.mean == pytest.approx(sum(expected.values()) / 3)
    assert evaluation.worst == max(evaluation.risks.values())
    assert evaluation.worst_task == max(expected, key=lambda name: expected[name])


def test_worst_task_is_a_weighted_one() -> None:
    evaluation = evaluated([{"values": torch.tensor([1.0, 2.0, 9.0]), "tasks": torch.tensor([0, 1, 3])}])
    assert evaluation == Evaluation({"noun": 1.0, "verb": 2.0, "nsp": 9.0}, 1.5, 2.0, "verb")


def test_task_without_elements_is_left_out() -> None:
    evaluation = evaluated([{"values": torch.tensor([1.0, 3.0]), "tasks": torch.tensor([0, 2])}])
    assert evaluation == Evaluation({"noun": 1.0, "rare": 3.0}, 2.0, 3.0, "rare")


@pytest.mark.parametrize("batches", [[], [{"values": torch.ones(2), "tasks": torch.tensor([3, 3])}]])
def test_no_element_of_a_weighted_task_is_an_error(batches: list[dict[str, Tensor]]) -> None:
    with pytest.raises(ValueError, match=r"^Expected held-out elements of one of \['noun', 'verb', 'rare'\], got none"):
        evaluated(batches)


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_in_the_mode_it_was_in(training: bool) -> None:
    model = Model().train(training)
    evaluated(cut(64), model)
    assert model.training == model.dropout.training == training


def test_batch_that_does_not_count_is_run_and_left_out() -> None:
    runs = []

    class Counting(Model):
        def forward(self, values: Tensor, tasks: Tensor) -> TaskLosses:
            runs.append(len(values))
            return super().forward(values, tasks)

    batches = list(zip(cut(40, 24), (True, False), strict=True))
    evaluation = evaluate(Counting(), criterion(), batches, nullcontext, torch.device("cpu"))
    assert runs == [40, 24]
    assert evaluation.risks["noun"] == pytest.approx(VALUES[:40][TASKS[:40] == 0].mean().item())


def test_risk_that_is_not_a_number_is_the_worst() -> None:
    nan = float("nan")
    evaluation = evaluated([{"values": torch.tensor([3.0, nan, 2.0]), "tasks": torch.tensor([0, 1, 2])}])
    assert (evaluation.worst, evaluation.worst_task) == (float("inf"), "verb")


def test_worst_task_is_compared_in_the_units_of_the_risks() -> None:
    risk = RiskEstimator(normalization="static", units=[0.01, 10])
    units = MultiTaskLoss(["noun", "verb"], risk=risk, auxiliary={"rare": 1.0, "nsp": 1.0})
    batch = {"values": torch.tensor([0.05, 5.0]), "tasks": torch.tensor([0, 1])}
    evaluation = evaluate(Model(), units, [(batch, True)], nullcontext, torch.device("cpu"))
    assert evaluation.risks == pytest.approx({"noun": 0.05, "verb": 5.0})
    assert (evaluation.worst, evaluation.worst_task) == (pytest.approx(5.0), "noun")
