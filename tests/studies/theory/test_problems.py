"""The optima of the problems are verified by weights of the tasks whose mixture is stationary there."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from taskrobust.studies.theory import exact
from taskrobust.studies.theory.exact import epigraph_solution, multipliers
from taskrobust.studies.theory.problems import (
    ChebyshevRegression,
    EnclosingBall,
    GroupLogistic,
    MinimaxProblem,
    PlantedMinimax,
    Quadratics,
    example_problems,
)

PROBLEMS = example_problems()
FAMILIES: list[Callable[[int], MinimaxProblem]] = [
    lambda seed: PlantedMinimax(seed=seed),
    lambda seed: ChebyshevRegression(seed=seed),
    lambda seed: EnclosingBall(seed=seed),
    lambda seed: GroupLogistic(seed=seed),
    lambda seed: Quadratics(seed=seed),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_mixture_of_the_worst_tasks_is_stationary_at_the_optimum(
    family: Callable[[int], MinimaxProblem], seed: int
) -> None:
    problem = family(seed)

    weights = multipliers(problem.risks, problem.solution)

    gradients = jacrev(problem.risks)(problem.solution)
    assert torch.linalg.vector_norm(weights @ gradients).item() < 1e-9 * problem.lipschitz
    assert (weights @ problem.risks(problem.solution)).item() == pytest.approx(problem.value, rel=1e-11)


@pytest.mark.parametrize(
    ("tasks", "dimension", "seed"), [(15, 10, 47), (14, 9, 128), (18, 7, 206), (19, 8, 110), (13, 12, 7), (1, 10, 0)]
)
def test_newtons_method_stays_at_the_optimum(tasks: int, dimension: int, seed: int) -> None:
    """The groups are so small that tasks just below the worst risk seem to share it."""
    problem = GroupLogistic(tasks, dimension, samples=20, seed=seed)
    weights = multipliers(problem.risks, problem.solution)
    assert torch.linalg.vector_norm(weights @ jacrev(problem.risks)(problem.solution)).item() < 1e-12
    assert (weights @ problem.risks(problem.solution)).item() == pytest.approx(problem.value, rel=1e-12)


def test_unverified_solutions_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(exact, "_sequential_quadratic_programming", lambda risks, start: start)
    monkeypatch.setattr(exact, "_newton_step", lambda risks, theta: theta + 1)
    with pytest.raises(RuntimeError, match=r"^Expected the exact solver to reach an error of 1e-09, got \d\.\de"):
        epigraph_solution(lambda theta: (theta - points).square().sum(1), points.mean(0))


@pytest.mark.parametrize("active", [1, 4])
def test_too_few_or_too_many_active_tasks_raise(active: int) -> None:
    with pytest.raises(ValueError, match=rf"^Expected from 2 to 3 active tasks, got {active}\.$"):
        PlantedMinimax(num_tasks=3, active=active)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_nearby_parameters_are_not_better_than_the_optimum(problem: MinimaxProblem) -> None:
    generator = torch.Generator().manual_seed(0)
    for length in (1e-6, 1e-3, 0.1, 1):
        for direction in torch.randn(20, len(problem.start), generator=generator, dtype=torch.float64):
            assert problem.gap(problem.solution + length * direction) > -1e-12


def points_of_the_ball(problem: MinimaxProblem, number: int) -> Tensor:
    """Draw points within twice the radius around the optimum, half of them on the boundary."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(number, len(problem.start), generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    lengths = 2 * problem.radius * torch.rand(number, 1, generator=generator, dtype=torch.float64)
    lengths[::2] = 2 * problem.radius
    return problem.solution + lengths * directions


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_constants_are_valid_on_the_ball(problem: MinimaxProblem) -> None:
    for theta in points_of_the_ball(problem, 50):
        risks, gradients = problem.risks(theta), jacrev(problem.risks)(theta)
        assert risks.min() >= 0
        assert risks.max() <= problem.bound
        assert gradients.norm(dim=1).max().item() <= problem.lipschitz * (1 + 1e-12)


@pytest.mark.parametrize("problem", [PlantedMinimax(), GroupLogistic(), Quadratics()], ids=lambda p: type(p).__name__)
def test_gradients_satisfy_the_smoothness(problem: MinimaxProblem) -> None:
    points = points_of_the_ball(problem, 20)
    for one, other in zip(points[::2], points[1::2], strict=True):
        change = (jacrev(problem.risks)(one) - jacrev(problem.risks)(other)).norm(dim=1).max()
        assert change <= problem.smoothness * (one - other).norm() * (1 + 1e-9)


def test_planted_start_has_the_given_distance() -> None:
    assert PlantedMinimax(distance=2.5).radius == pytest.approx(2.5)


def test_smallest_ball_around_a_triangle_touches_two_or_three_corners() -> None:
    problem = EnclosingBall(num_tasks=3, dimension=2)
    center = problem.solution.numpy()
    distances = np.linalg.norm(problem.points.numpy() - center, axis=1)
    longest = max(np.linalg.norm(a - b) for a in problem.points.numpy() for b in problem.points.numpy())

    assert distances.max() >= longest / 2 - 1e-12  # the ball contains both ends of the longest side
    assert (np.isclose(distances, distances.max(), rtol=1e-12).sum()) >= 2
