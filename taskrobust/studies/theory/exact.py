from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import jacrev

TOLERANCE = 1e-9


def epigraph_solution(risks: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    r"""Solve a small smooth convex minimax problem to machine precision.

    .. math:: \min_{\theta, v} v \quad \text{such that} \quad f_t(\theta) \le v \text{ for all } t

    Sequential quadratic programming finds the tasks that share the worst risk. Newton's method on their optimality
    conditions refines the solution, which is verified: a mixture of the worst tasks is stationary there.

    Args:
        risks: Function from parameters, shape [d], to the risks of the tasks, shape [T], float64.
        start: Initial parameters, shape [d], float64.

    Returns:
        The optimum :math:`\theta^*`, shape [d].

    Raises:
        RuntimeError: If the solver does not converge.
    """
    theta = _sequential_quadratic_programming(risks, start)
    error = optimality_error(risks, theta, start)
    for _ in range(10):
        candidate = _newton_step(risks, theta)
        candidate_error = optimality_error(risks, candidate, start)
        if not candidate_error < error:
            break
        theta, error = candidate, candidate_error
    if not error <= TOLERANCE:
        raise RuntimeError(f"Expected the exact solver to reach an error of {TOLERANCE:g}, got {error:.1e}.")
    return theta


def optimality_error(risks: Callable[[Tensor], Tensor], theta: Tensor, start: Tensor) -> float:
    r"""Compute how far parameters are from being certified optimal by a mixture of the worst tasks, without unit.

    .. math:: \min_\lambda \frac{\|\sum_t \lambda_t \nabla f_t\|}{\max_t \|\nabla f_t(\theta_0)\|}
        + \frac{\max_t f_t - \sum_t \lambda_t f_t}{\max_t |f_t|}

    Args:
        risks: Function from parameters, shape [d], to the risks of the tasks, shape [T], float64.
        theta: Parameters, shape [d].
        start: Parameters whose gradients define the unit, shape [d].
    """
    tiny = torch.finfo(theta.dtype).tiny  # in case the start is optimal
    weights, values = multipliers(risks, theta), risks(theta)
    steepest = torch.linalg.vector_norm(jacrev(risks)(start), dim=1).max().clamp(min=tiny)
    stationarity = torch.linalg.vector_norm(weights @ jacrev(risks)(theta)) / steepest
    slackness = (values.max() - weights @ values) / values.abs().max().clamp(min=tiny)
    return float(stationarity + slackness)


def multipliers(risks: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    r"""Compute the weights of the tasks that certify parameters as optimal, or nearly so.

    They minimize the norm of the weighted gradient and the weights of tasks below the worst risk. At the optimum,
    :math:`\sum_t \lambda_t \nabla f_t = 0` and :math:`\sum_t \lambda_t f_t = \max_t f_t`.

    Args:
        risks: Function from parameters, shape [d], to the risks of the tasks, shape [T], float64.
        theta: Parameters, shape [d].

    Returns:
        Weights :math:`\lambda` with sum 1, shape [T].
    """
    from scipy.optimize import nnls

    values, gradients = risks(theta).numpy(), jacrev(risks)(theta).numpy()
    conditions = np.vstack([gradients.T, values.max() - values, np.ones(len(values))])
    weights, _ = nnls(conditions, np.append(np.zeros(len(theta) + 1), 1.0))
    return torch.from_numpy(weights / weights.sum())


def _sequential_quadratic_programming(risks: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    from scipy.optimize import minimize

    def slack(point: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = risks(torch.from_numpy(point[:-1])).numpy()
        return np.full_like(values, point[-1]) - values

    def slack_gradients(point: NDArray[np.float64]) -> NDArray[np.float64]:
        gradients = jacrev(risks)(torch.from_numpy(point[:-1])).numpy()
        return np.column_stack([-gradients, np.ones(len(gradients))])

    level_gradient = np.append(np.zeros(len(start)), 1.0)
    solution = minimize(
        lambda point: point[-1],
        np.append(start.numpy(), risks(start).max().item()),
        jac=lambda point: level_gradient,
        constraints={"type": "ineq", "fun": slack, "jac": slack_gradients},
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 1000},
    )
    if not solution.success:
        raise RuntimeError(f"Expected the exact solver to converge, got {solution.message!r}.")
    return torch.from_numpy(solution.x[:-1].copy())


def _newton_step(risks: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """Step towards parameters where the risks of the active tasks agree and their weighted gradients cancel."""
    weights, values = multipliers(risks, theta), risks(theta)
    on_top = values.max() - values <= 1e-6 * values.abs().max()
    active = torch.nonzero((weights > 1e-5) & on_top).flatten()
    curvature = jacrev(jacrev(lambda theta: weights @ risks(theta)))(theta).numpy()
    gradients = jacrev(risks)(theta)[active].numpy()
    d, count = len(theta), len(active)
    ones = np.ones((1, count))
    # Unknowns: the step, minus the common risk, and the weights.
    conditions = np.block(
        [
            [curvature, np.zeros((d, 1)), gradients.T],
            [gradients, ones.T, np.zeros((count, count))],
            [np.zeros((1, d + 1)), ones],
        ]
    )
    right_side = np.concatenate([np.zeros(d), -risks(theta)[active].numpy(), [1.0]])
    unknown = np.linalg.lstsq(conditions, right_side, rcond=None)[0]
    return theta + torch.from_numpy(unknown[:d])
