from itertools import islice

import numpy as np
import pytest
import torch
from torch.func import jacrev

from taskrobust.studies.theory import (
    constant_alpha_bound,
    convergence_bound,
    softmax_weighted_gradient_descent,
    step_size,
    take,
    weighted_gradient_descent,
)
from taskrobust.studies.theory.exact import multipliers
from taskrobust.studies.theory.problems import (
    ChebyshevRegression,
    EnclosingBall,
    GroupLogistic,
    MinimaxProblem,
    PlantedMinimax,
    Quadratics,
    example_problems,
)
from taskrobust.weighting import Linear, Uniform
from taskrobust.weighting.schedules import Entropic, Schedule, Sharp, Theorem31

PROBLEMS = example_problems()
SCHEDULES = ["paper", "entropic", "sharp"]


def make_schedule(name: str, problem: MinimaxProblem) -> Schedule:
    constants = problem.num_tasks, problem.radius, problem.lipschitz
    if name == "paper":
        return Theorem31(*constants, problem.bound)
    return Entropic(*constants) if name == "entropic" else Sharp(*constants)


def gap_over_bound(problem: MinimaxProblem, alpha: float | Schedule, steps: int) -> float:
    """Gap divided by the bound, which is never negative."""
    size = step_size(problem.radius, problem.lipschitz, steps)
    found = take(softmax_weighted_gradient_descent(problem.risks, problem.start, alpha, size), steps)
    gap = problem.gap(found.average)
    assert gap >= -1e-9 * problem.value
    return gap / convergence_bound(problem.radius, problem.lipschitz, steps)


def random_problem(seed: int) -> MinimaxProblem:
    """Create a problem of a random family and size."""
    draw = np.random.default_rng(seed)
    dimension = int(draw.integers(2, 13))
    tasks = int(draw.integers(2, 21))
    match draw.integers(5):
        case 0:
            active = int(draw.integers(2, tasks + 1))
            curvature, distance = draw.uniform(0, 2), 10 ** draw.uniform(-1, 1)
            return PlantedMinimax(tasks, dimension, active, curvature, distance, seed)
        case 1:
            return ChebyshevRegression(dimension + tasks, dimension, seed)
        case 2:
            return EnclosingBall(tasks, dimension, seed)
        case 3:
            return GroupLogistic(tasks, dimension, samples=20, ridge=10 ** draw.uniform(-3, -1), seed=seed)
        case _:
            return Quadratics(tasks, dimension, seed)


def is_worth_a_descent(problem: MinimaxProblem) -> bool:
    """Verify the optimum, and check that the start is not optimal."""
    weights, risks = multipliers(problem.risks, problem.solution), problem.risks(problem.solution)
    slope = torch.linalg.vector_norm(weights @ jacrev(problem.risks)(problem.solution)).item()
    assert slope <= 1e-9 * problem.lipschitz
    assert (weights @ risks).item() == pytest.approx(problem.value, rel=1e-9)
    return problem.radius > 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_theorem_31_holds(problem: MinimaxProblem, schedule: str) -> None:
    for steps in (10, 100, 400):
        assert gap_over_bound(problem, make_schedule(schedule, problem), steps) <= 0.55


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_initial_gap_exceeds_the_bound_of_theorem_31(problem: MinimaxProblem) -> None:
    assert problem.gap(problem.start) > 0.55 * convergence_bound(problem.radius, problem.lipschitz, 400)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_theorem_31_holds_for_many_steps(problem: MinimaxProblem, schedule: str) -> None:
    for steps in (1000, 10_000):
        assert gap_over_bound(problem, make_schedule(schedule, problem), steps) <= 0.55


@pytest.mark.parametrize("seed", [seed for seed in range(31) if seed != 14])  # 14 starts at the optimum
def test_theorem_31_holds_on_random_problems(seed: int) -> None:
    problem = random_problem(seed)
    assert is_worth_a_descent(problem)
    schedule = make_schedule(SCHEDULES[seed % 3], problem)
    for steps in (10, 100):
        assert gap_over_bound(problem, schedule, steps) <= 0.55


@pytest.mark.slow
def test_theorem_31_holds_on_300_random_problems() -> None:
    for seed in range(300):
        problem = random_problem(seed)
        if not is_worth_a_descent(problem):
            continue
        schedule = make_schedule(SCHEDULES[seed % 3], problem)
        for steps in (10, 100, 1000):
            assert gap_over_bound(problem, schedule, steps) <= 0.55, (seed, steps)


@pytest.mark.parametrize("steps", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_alpha_of_one_violates_the_bound(steps: int) -> None:
    assert gap_over_bound(PROBLEMS["planted d=100"], 1.0, steps) > 1.5


@pytest.mark.parametrize("alpha", [30.0, 100.0])
def test_constant_alpha_satisfies_its_bound(alpha: float) -> None:
    for problem in PROBLEMS.values():
        constants = problem.radius, problem.lipschitz, 400
        limit = constant_alpha_bound(*constants, problem.num_tasks, alpha)
        assert limit < problem.gap(problem.start)
        assert gap_over_bound(problem, alpha, 400) <= limit / convergence_bound(*constants)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_iterates_stay_within_twice_the_initial_distance(problem: MinimaxProblem) -> None:
    size = step_size(problem.radius, problem.lipschitz, 100)
    schedule = make_schedule("sharp", problem)
    for theta in islice(softmax_weighted_gradient_descent(problem.risks, problem.start, schedule, size), 100):
        assert (theta - problem.solution).norm().item() <= 2 * problem.radius


def test_steps_follow_the_weighted_gradient() -> None:
    """Two steps with alpha 0 and then 2, from manual derivatives."""
    points, start = np.array([0.0, 3.0]), 1.0

    def weighted_gradient(theta: float, alpha: float) -> float:
        exponentials = np.exp(alpha * (theta - points) ** 2)
        return float(exponentials @ (2 * (theta - points)) / exponentials.sum())

    first = start - 0.1 * weighted_gradient(start, 0.0)
    second = first - 0.1 * weighted_gradient(first, 2.0)

    found = islice(
        softmax_weighted_gradient_descent(
            lambda theta: (theta - torch.from_numpy(points)).square(),
            torch.tensor([start], dtype=torch.float64),
            Linear(0.0, 2.0, steps=1),
            step_size=0.1,
        ),
        3,
    )
    assert [theta.item() for theta in found] == pytest.approx([start, first, second], rel=1e-12)


def test_descent_accepts_any_strategy() -> None:
    problem = Quadratics()
    found = take(weighted_gradient_descent(problem.risks, problem.start, Uniform(), 0.1), 2000)
    hessian = problem.hessians.mean(0)
    pull = torch.einsum("tde,te->td", problem.hessians, problem.minima).mean(0)

    torch.testing.assert_close(found.last, torch.linalg.solve(hessian, pull), rtol=1e-6, atol=1e-6)


def test_take_averages_the_first_iterates() -> None:
    iterates = (torch.tensor([float(k)]) for k in range(100))
    found = take(iterates, 5)
    assert (found.average.item(), found.last.item()) == (2.0, 4.0)
