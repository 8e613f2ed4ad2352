import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from taskrobust import MultiTaskLoss, RiskEstimator, SoftmaxMinimax, TaskLosses, pool_batches

SUMS = np.array([[4.0, 9.0], [6.0, 0.0], [1.0, 8.0], [9.0, 2.0]])
COUNTS = np.array([[2.0, 3.0], [4.0, 0.0], [1.0, 2.0], [3.0, 1.0]])


def losses(step: int) -> TaskLosses:
    return TaskLosses(torch.tensor(SUMS[step]).float(), torch.tensor(COUNTS[step]).float())


def mean_over_batches_with_the_task(last: int, decay: float) -> np.ndarray:
    """Mean over the elements of batches 0 to ``last``; one that is k batches with the task back counts decay^k."""
    means = []
    for sums, counts in zip(SUMS[: last + 1].T, COUNTS[: last + 1].T, strict=True):
        sums, counts = sums[counts > 0], counts[counts > 0]
        ages = decay ** np.arange(len(counts))[::-1]
        means.append(ages @ sums / (ages @ counts))
    return np.array(means)


def test_running_risk_is_the_mean_over_elements_that_lose_weight_with_age() -> None:
    estimator = RiskEstimator(smoothing=0.9).setup("ab")
    for step in range(4):
        estimator.update(losses(step))
        expected = mean_over_batches_with_the_task(step, decay=0.9)
        np.testing.assert_allclose(estimator.running().numpy(), expected, rtol=1e-6)


def test_absent_task_keeps_its_running_risk_whatever_the_smallest_count() -> None:
    estimator = RiskEstimator(smoothing=0.5, min_count=4, normalization="ema", unit_decay=0.5).setup("ab")
    estimator.update(TaskLosses(torch.tensor([12.0, 20.0]), torch.tensor([4.0, 10.0])))
    before = estimator.running()
    for _ in range(2000):
        estimator.update(TaskLosses(torch.tensor([0.0, 20.0]), torch.tensor([0.0, 10.0])))
    assert torch.equal(estimator.running()[0], before[0])


def test_running_risk_by_hand() -> None:
    estimator = RiskEstimator(smoothing=0.5).setup("a")
    estimator.update(TaskLosses(torch.tensor([8.0]), torch.tensor([2.0])))
    estimator.update(TaskLosses(torch.tensor([3.0]), torch.tensor([3.0])))

    assert estimator.running().tolist() == [(0.5 * 8 + 3) / (0.5 * 2 + 3)]


def test_without_smoothing_the_running_risk_is_that_of_the_batch() -> None:
    estimator = RiskEstimator().setup("ab")
    for step in (0, 2, 3):
        estimator.update(losses(step))
        np.testing.assert_allclose(estimator.running().numpy(), SUMS[step] / COUNTS[step], rtol=1e-6)


def test_a_task_that_was_not_seen_takes_the_mean_of_those_that_were() -> None:
    estimator = RiskEstimator(smoothing=0.9).setup("abc")
    assert estimator.running().tolist() == [0, 0, 0]

    estimator.update(TaskLosses(torch.tensor([4.0, 0.0, 3.0]), torch.tensor([2.0, 0.0, 3.0])))

    assert estimator.running().tolist() == [2.0, 1.5, 1.0]


def test_min_count_shrinks_the_risk_of_a_task_with_few_elements() -> None:
    estimator = RiskEstimator(min_count=4).setup("ab")
    estimator.update(TaskLosses(torch.tensor([6.0, 20.0]), torch.tensor([2.0, 10.0])))

    assert estimator.running().tolist() == [6 / 4, 20 / 10]


def test_min_count_also_shrinks_the_step_of_a_task_with_few_elements() -> None:
    criterion = MultiTaskLoss(["noun", "verb"], "uniform", risk=RiskEstimator(min_count=4))
    sums = torch.tensor([6.0, 20.0], requires_grad=True)

    criterion(TaskLosses(sums, torch.tensor([2.0, 10.0]))).backward()

    torch.testing.assert_close(sums.grad, torch.tensor([0.5 / 4, 0.5 / 10]))


def test_unit_none_is_one() -> None:
    estimator = RiskEstimator().setup("ab")
    estimator.update(losses(0))

    assert estimator.unit().tolist() == [1, 1]


def test_unit_initial_is_the_mean_risk_over_the_first_batches_with_the_task() -> None:
    estimator = RiskEstimator(normalization="initial", unit_steps=2).setup("ab")
    assert estimator.unit().tolist() == [1, 1]
    for step in range(4):
        estimator.update(losses(step))

    # The second task is absent from batch 1, so that its first two batches are 0 and 2.
    np.testing.assert_allclose(estimator.unit().numpy(), [(4 + 6) / (2 + 4), (9 + 8) / (3 + 2)], rtol=1e-6)


def test_unit_ema_is_the_slow_mean() -> None:
    estimator = RiskEstimator(normalization="ema", unit_decay=0.8).setup("ab")
    for step in range(4):
        estimator.update(losses(step))

    unit = mean_over_batches_with_the_task(3, decay=0.8)
    np.testing.assert_allclose(estimator.unit().numpy(), unit, rtol=1e-6)
    np.testing.assert_allclose(estimator.running().numpy(), SUMS[3] / COUNTS[3] / unit, rtol=1e-6)


def test_unit_chance_is_the_cross_entropy_of_a_guess() -> None:
    estimator = RiskEstimator(normalization="chance", units=[30522, 2]).setup("ab")
    estimator.update(TaskLosses(torch.tensor([math.log(30522), 1.0]), torch.tensor([1.0, 1.0])))

    torch.testing.assert_close(estimator.unit(), torch.tensor([math.log(30522), math.log(2)]))
    torch.testing.assert_close(estimator.running(), torch.tensor([1.0, 1 / math.log(2)]))


def test_unit_static_is_what_was_given() -> None:
    estimator = RiskEstimator(normalization="static", units=[0.5, 4]).setup("ab")
    estimator.update(losses(0))

    assert estimator.unit().tolist() == [0.5, 4]
    np.testing.assert_allclose(estimator.running().numpy(), SUMS[0] / COUNTS[0] / [0.5, 4], rtol=1e-6)


@pytest.mark.parametrize("normalization", ["initial", "ema"])
@pytest.mark.parametrize("loss", [0.0, -3.0])
def test_a_mean_that_is_not_positive_is_no_unit(normalization: Any, loss: float) -> None:
    criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(normalization=normalization))

    total = criterion(TaskLosses(torch.tensor([loss, 4.0]), torch.tensor([1.0, 2.0])))

    assert criterion.risk.unit().tolist() == [1, 2]
    assert total.isfinite()


def trajectory(scale: Tensor, normalization: Any) -> tuple[Tensor, Tensor]:
    """Parameters and weights over steps of gradient descent on losses of the given scales."""
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    risk = RiskEstimator(smoothing=0.5, normalization=normalization, unit_decay=0.9)
    criterion = MultiTaskLoss(["a", "b", "c"], SoftmaxMinimax(alpha=3, relative=False), risk=risk)
    path, weights = [], []
    for _ in range(20):
        inputs = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        sums = scale * (1 + (inputs @ parameters - 1).square())
        (gradient,) = torch.autograd.grad(criterion(TaskLosses(sums, torch.ones(3))), parameters)
        with torch.no_grad():
            parameters -= 0.1 * gradient
        path.append(parameters.detach().clone())
        weights.append(criterion.last.weight_vector)
    return torch.stack(path), torch.stack(weights)


@pytest.mark.parametrize("normalization", ["initial", "ema"])
def test_rescaled_losses_leave_the_trajectory_of_relative_risks_unchanged(normalization: str) -> None:
    plain_path, plain_weights = trajectory(torch.ones(3), normalization)
    path, weights = trajectory(torch.tensor([1.0, 100.0, 0.01]), normalization)

    torch.testing.assert_close(path, plain_path, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights, plain_weights, rtol=1e-5, atol=1e-5)


def test_rescaled_losses_change_the_trajectory_of_absolute_risks() -> None:
    plain_path, _ = trajectory(torch.ones(3), "none")
    path, _ = trajectory(torch.tensor([1.0, 2.0, 0.5]), "none")

    assert (path - plain_path).abs().max() > 0.01


@pytest.mark.parametrize("normalization", ["initial", "ema"])
def test_state_resumes_exactly_before_and_after_the_reference_is_complete(normalization: Any) -> None:
    for steps in (1, 3):
        arguments = {"smoothing": 0.9, "normalization": normalization, "unit_steps": 2}
        straight, resumed = (RiskEstimator(**arguments).setup("ab") for _ in range(2))
        for step in range(steps):
            straight.update(losses(step))
        resumed.load_state_dict(straight.state_dict())
        for step in range(steps, 4):
            straight.update(losses(step))
            resumed.update(losses(step))
            assert torch.equal(resumed.running(), straight.running())
            assert torch.equal(resumed.unit(), straight.unit())


def test_pooled_batches_are_those_of_the_union() -> None:
    sums = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    pooled = pool_batches(TaskLosses(sums * factor, torch.tensor([2, factor])) for factor in (1, 2))

    assert pooled.sums.tolist() == [3, 6]
    assert pooled.counts.tolist() == [4, 3]
    assert pooled.sums.dtype == pooled.counts.dtype == torch.float32
    assert not pooled.sums.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smoothing": 1.0}, "Expected smoothing in [0, 1), got 1.0."),
        ({"smoothing": -0.1}, "Expected smoothing in [0, 1), got -0.1."),
        (
            {"normalization": "initials"},
            "Expected a normalization among ['none', 'initial', 'ema', 'chance', 'static'], got 'initials'.",
        ),
        (
            {"normalization": "chance"},
            "Expected units, one value per task, with normalization 'chance', got None.",
        ),
        (
            {"units": [1.0, 2.0]},
            "Expected no units with normalization 'none', got [1.0, 2.0].",
        ),
        (
            {"normalization": "static", "units": [1.0, 2.0, 3.0]},
            "Expected one value per task of ['a', 'b'] in RiskEstimator(units=...), got [1.0, 2.0, 3.0].",
        ),
        (
            {"normalization": "static", "units": [1.0, 0.0]},
            "Expected units above 0 with normalization 'static', got [1.0, 0.0].",
        ),
        (
            {"normalization": "chance", "units": [2, 1]},
            "Expected units above 1 with normalization 'chance', got [2, 1].",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RiskEstimator(**arguments).setup("ab")
