import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from taskrobust.studies.theory import (
    constant_alpha_bound,
    convergence_bound,
    descent_radius,
    sample_complexity_bound,
    softmax_gap,
    step_size,
    worst_downstream_risk,
)
from taskrobust.weighting.schedules import Entropic, Sharp, Theorem31


@pytest.mark.parametrize("tasks", [2, 3, 10, 1000])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 7.0])
def test_softmax_gap_is_the_largest_gap(tasks: int, alpha: float) -> None:
    """Search over the distance of equal risks below a single worst one, which is the worst case."""

    def gap(distance: float) -> float:
        others = (tasks - 1) * math.exp(-alpha * distance)
        return distance * others / (1 + others)

    found = minimize_scalar(lambda distance: -gap(distance), bounds=(0, 20 / alpha), method="bounded")

    assert softmax_gap(tasks, alpha) == pytest.approx(-found.fun, abs=1e-6)
    assert softmax_gap(tasks, alpha) < math.log(tasks) / alpha


def test_softmax_gap_of_ten_tasks() -> None:
    assert softmax_gap(10, 1.0) == pytest.approx(1.1010, abs=1e-4)


def test_random_risks_do_not_exceed_the_softmax_gap() -> None:
    risks = 5 * np.random.default_rng(0).standard_normal((20000, 6))
    weights = np.exp(2.0 * risks) / np.exp(2.0 * risks).sum(1, keepdims=True)

    assert (risks.max(1) - (weights * risks).sum(1)).max() <= softmax_gap(6, 2.0)


@pytest.mark.parametrize("radius", [0.5, 3.0])
@pytest.mark.parametrize("lipschitz", [0.2, 4.0])
@pytest.mark.parametrize("tasks", [2, 10, 500])
def test_schedules_attain_the_gap_of_the_proof(radius: float, lipschitz: float, tasks: int) -> None:
    steps = torch.arange(0, 10_000, 37)
    allowed = (radius * lipschitz / (2 * (steps + 1.0).sqrt())).double().numpy()

    sharp, entropic = (kind(tasks, radius, lipschitz)(steps).double().numpy() for kind in (Sharp, Entropic))

    np.testing.assert_allclose(softmax_gap(tasks, 1.0) / sharp, allowed, rtol=1e-6)
    np.testing.assert_allclose(math.log(tasks) / entropic, allowed, rtol=1e-6)
    assert (sharp < entropic).all()


def test_entropic_schedule_is_below_theorem_31_for_large_risks() -> None:
    steps = torch.arange(100)
    assert (Entropic(10, 1.0, 1.0)(steps) < Theorem31(10, 1.0, 1.0, bound=2.0)(steps)).all()


@pytest.mark.parametrize("schedule", [Entropic, Sharp])
def test_nonpositive_constants_raise(schedule: type[Entropic]) -> None:
    with pytest.raises(
        ValueError, match=r"^Expected positive constants, got num_tasks=3, radius=0\.0, lipschitz=1\.0\.$"
    ):
        schedule(3, 0.0, 1.0)


def test_bound_and_step_size_of_theorem_31() -> None:
    assert convergence_bound(radius=3.0, lipschitz=2.0, steps=100) == pytest.approx(1.2)
    assert step_size(radius=3.0, lipschitz=2.0, steps=100) == pytest.approx(0.15)
    assert constant_alpha_bound(3.0, 2.0, 100, num_tasks=10, alpha=2.0) == pytest.approx(0.6 + 1.1010 / 2, abs=1e-4)


def test_nonpositive_alpha_raises() -> None:
    with pytest.raises(ValueError, match=r"^Expected a positive alpha, got 0\.$"):
        softmax_gap(10, 0)


@pytest.mark.parametrize(("eps", "delta"), [(0.0, 0.1), (0.1, 2.0), (0.1, 0.0)])
def test_excess_risk_or_probability_out_of_range_raises(eps: float, delta: float) -> None:
    message = rf"^Expected a positive eps and a delta between 0 and 1, got eps={eps}, delta={delta}\.$"
    with pytest.raises(ValueError, match=message):
        sample_complexity_bound(0.5, 10, 1, 1, 1, eps=eps, delta=delta)


def test_theorem_54_agrees_with_equation_13() -> None:
    constants = {"worst_risk": 0.5, "dimension": 10, "bound": 1, "lipschitz": 1, "strong_convexity": 1}

    assert sample_complexity_bound(**constants, eps=0.1, delta=0.1) == pytest.approx(43047.82, abs=0.005)
    outside = sample_complexity_bound(**constants, eps=0.1, delta=0.1, ball_in_domain=False)
    assert outside - 43047.82 == pytest.approx(8000 * math.log(321 / 161), abs=0.01)


def test_descent_stays_in_the_ball_of_proposition_53() -> None:
    """Quadratic risk with curvatures 0.5 to 4 and minimum 2, with the largest allowed step size."""
    curvatures = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    for start in torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        theta = start.clone()
        radius = descent_radius(2 + (curvatures @ start.square() / 2).item(), 0.5, least_risk=2)
        for _ in range(20):
            assert theta.norm() <= radius
            theta = theta - 0.25 * curvatures * theta


def test_mixtures_of_tasks_are_not_worse_than_the_worst_task() -> None:
    risks = [0.3, 2.0, 1.0]
    mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 1000)

    assert (mixtures @ risks).max() <= worst_downstream_risk(risks) == 2.0
