import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from taskrobust.studies.theory import OutlierExample, solve_minimax


@pytest.mark.parametrize(("tasks", "curvature"), [(10, 9.0), (5, 2.0), (100, 99.0), (20, 3.5)])
def test_solutions_agree_with_a_numerical_search(tasks: int, curvature: float) -> None:
    example = OutlierExample(tasks, curvature)
    options = {"bounds": (0, 1), "method": "bounded", "options": {"xatol": 1e-13}}
    average = minimize_scalar(lambda x: curvature * (x - 1) ** 2 + (tasks - 1) * x**2, **options)
    worst = minimize_scalar(lambda x: max(curvature * (x - 1) ** 2, x**2), **options)

    assert example.theta_average == pytest.approx(average.x, abs=1e-7)
    assert example.theta_minimax == pytest.approx(worst.x, abs=1e-7)
    assert example.worst_risk(example.theta_minimax) <= worst.fun


def test_values_for_ten_tasks() -> None:
    example = OutlierExample(10, 9)
    assert example.theta_minimax == pytest.approx(0.75, abs=1e-9)
    assert example.worst_risk(example.theta_minimax) == pytest.approx(0.5625, abs=1e-9)
    assert example.worst_risk(example.theta_average) == pytest.approx(9 * 81 / 18**2, abs=1e-9)


@pytest.mark.parametrize(("tasks", "ratio"), [(10, 4.0), (100, 29.97493718553), (1000, 265.80348062928)])
def test_ratio_of_the_papers_example(tasks: int, ratio: float) -> None:
    example = OutlierExample.of_the_paper(tasks)
    assert example.ratio == pytest.approx(ratio, abs=1e-9)
    assert example.ratio == pytest.approx((math.sqrt(tasks - 1) + 1) ** 2 / 4, rel=1e-12)


def test_no_curvature_has_a_larger_ratio() -> None:
    largest = OutlierExample.of_the_largest_ratio(10)
    assert largest.ratio == pytest.approx((math.sqrt(10) + 1) ** 2 / 4, rel=1e-12)
    assert all(OutlierExample(10, largest.curvature * factor).ratio < largest.ratio for factor in (0.5, 0.9, 1.1, 2))


def test_the_papers_crossing_is_the_larger_one() -> None:
    example = OutlierExample.of_the_paper(10)
    assert example.risks(torch.tensor(example.theta_paper)).tolist() == pytest.approx([2.25] * 10)
    assert example.ratio_paper == pytest.approx((math.sqrt(9) - 1) ** 2 / 4)


@pytest.mark.parametrize(("copies", "gap"), [(1, 0.152), (9, 0.508)])
def test_copies_of_a_task_change_the_solution_of_a_finite_alpha(copies: int, gap: float) -> None:
    example = OutlierExample(1 + copies, 9)
    found = example.worst_risk(example.theta_softmax(1.0)) - example.worst_risk(example.theta_minimax)
    assert found == pytest.approx(gap, abs=5e-4)


def test_solver_finds_the_minimax_solution() -> None:
    example = OutlierExample.of_the_paper(100)
    theta = solve_minimax(lambda theta: example.risks(theta[0]), torch.zeros(1, dtype=torch.float64))
    assert theta.item() == pytest.approx(example.theta_minimax, abs=1e-4)
