import math
from itertools import islice

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from taskrobust.studies.theory import (
    Iterates,
    accelerated_log_sum_exp,
    exponentiated_gradient,
    mirror_prox,
    solve_minimax,
    step_size,
    subgradient_descent,
    take,
    weighted_gradient_descent,
)
from taskrobust.studies.theory.problems import MinimaxProblem, Quadratics, example_problems
from taskrobust.weighting import Uniform

PROBLEMS = example_problems()
K = 300


@pytest.fixture(params=PROBLEMS.values(), ids=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> MinimaxProblem:
    return request.param  # type: ignore[no-any-return]


def test_subgradient_descent_satisfies_its_bound(problem: MinimaxProblem) -> None:
    size = step_size(problem.radius, problem.lipschitz, K)
    found = take(subgradient_descent(problem.risks, problem.start, size), K)
    assert problem.gap(found.average) <= problem.radius * problem.lipschitz / math.sqrt(K)


def group_dro(problem: MinimaxProblem) -> Iterates:
    entropy = math.log(problem.num_tasks)
    size = step_size(problem.radius, problem.lipschitz, K)
    weight_size = math.sqrt(2 * entropy / K) / problem.bound
    return take(exponentiated_gradient(problem.risks, problem.start, size, weight_size), K)


@pytest.mark.parametrize("name", ["Chebyshev d=2", "ball d=2", "ball d=10"])
def test_exponentiated_gradient_satisfies_its_bound(name: str) -> None:
    problem = PROBLEMS[name]
    regrets = problem.radius * problem.lipschitz + problem.bound * math.sqrt(2 * math.log(problem.num_tasks))
    assert problem.gap(group_dro(problem).average) <= regrets / math.sqrt(K) < problem.gap(problem.start)


def test_exponentiated_gradient_beats_uniform_weights() -> None:
    problem = PROBLEMS["ball d=10"]
    size = step_size(problem.radius, problem.lipschitz, K)
    uniform = take(weighted_gradient_descent(problem.risks, problem.start, Uniform(), size), K)
    assert problem.gap(group_dro(problem).average) < 0.6 * problem.gap(uniform.average)


def test_steps_of_exponentiated_gradient_multiply_the_weights() -> None:
    """Two steps from manual derivatives: the weights accumulate over steps."""
    points, theta, weights = np.array([0.0, 3.0]), 1.0, np.array([0.5, 0.5])
    expected = [theta]
    for _ in range(2):
        weights = weights * np.exp(0.2 * (theta - points) ** 2)
        weights /= weights.sum()
        theta -= 0.1 * float(weights @ (2 * (theta - points)))
        expected.append(theta)

    targets, start = torch.from_numpy(points), torch.tensor([1.0], dtype=torch.float64)
    found = islice(exponentiated_gradient(lambda theta: (theta - targets).square(), start, 0.1, 0.2), 3)
    assert [theta.item() for theta in found] == pytest.approx(expected, rel=1e-12)


def test_mirror_prox_satisfies_its_bound(problem: MinimaxProblem) -> None:
    entropy = math.log(problem.num_tasks)
    found = take(mirror_prox(problem.risks, problem.start, problem.radius, problem.lipschitz, problem.smoothness), K)
    operator = problem.radius**2 * problem.smoothness + problem.radius * problem.lipschitz * math.sqrt(entropy)
    assert problem.gap(found.average) <= 2 * operator / K


@pytest.mark.parametrize("name", ["planted d=10", "planted d=100", "logistic d=10", "quadratics d=10"])
def test_accelerated_log_sum_exp_satisfies_its_bound(name: str) -> None:
    problem = PROBLEMS[name]
    entropy = math.log(problem.num_tasks)
    alpha = K * math.sqrt(entropy / 2) / (problem.radius * problem.lipschitz)
    constants = problem.lipschitz, problem.smoothness
    found = take(accelerated_log_sum_exp(problem.risks, problem.start, alpha, *constants), K)
    curvature = problem.smoothness + alpha * problem.lipschitz**2
    assert problem.gap(found.last) <= entropy / alpha + 2 * curvature * problem.radius**2 / (K - 1) ** 2


def test_solve_minimax_finds_the_optimum(problem: MinimaxProblem) -> None:
    unit = problem.risks(problem.start).max().item()
    assert -1e-12 <= problem.gap(solve_minimax(problem.risks, problem.start)) <= 1e-5 * unit


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e6])
def test_solve_minimax_is_independent_of_the_unit_of_the_risks(problem: MinimaxProblem, unit: float) -> None:
    found = solve_minimax(lambda theta: unit * problem.risks(theta), problem.start)
    assert problem.gap(found) <= 1e-5 * problem.risks(problem.start).max().item()


def test_solve_minimax_agrees_with_linear_programming_on_a_matrix_game() -> None:
    """Rows are tasks; mixed strategies of the columns are a softmax of the parameters."""
    payoff = np.random.default_rng(0).standard_normal((4, 3))
    program = linprog(
        [0, 0, 0, 1],
        A_ub=np.column_stack([payoff, -np.ones(4)]),
        b_ub=np.zeros(4),
        A_eq=[[1, 1, 1, 0]],
        b_eq=[1],
        bounds=[(0, None)] * 3 + [(None, None)],
    )
    matrix = torch.from_numpy(payoff)

    theta = solve_minimax(lambda theta: matrix @ theta.softmax(0), torch.zeros(3, dtype=torch.float64))

    assert (matrix @ theta.softmax(0)).max().item() == pytest.approx(program.fun, abs=2e-4)


def test_solve_minimax_preserves_the_dtype() -> None:
    problem = Quadratics()
    theta = solve_minimax(
        lambda theta: problem.risks(theta.double()).float(), problem.start.float(), alphas=(1, 10, 100)
    )
    assert theta.dtype == torch.float32
    assert problem.gap(theta.double()) < 0.02
