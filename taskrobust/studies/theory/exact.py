from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import jacrev

TOLERANCE = 1e-9


def epigraph_solution(risks: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    r"""Solve a small smooth convex problem to machine precision.

    .. math:: \min_{\theta, v} v \quad \text{such that} \quad f_t(\theta) \le v \text{ for all } t

    Sequential quadratic programming finds the tasks that share the worst risk, Newton's method on their optimality
    conditions the remaining digits. What is returned is checked: a mixture of the worst tasks is stationary there.

    Args:
        risks: Risks of the tasks by parameters: shape [T] from shape [d], float64.
        start: First parameters, shape [d], float64.

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
    r"""How far parameters are from being proven optimal by a mixture of the worst tasks. No unit.

    .. math:: \min_\lambda \frac{\|\sum_t \lambda_t \nabla f_t\|}{\max_t \|\nabla f_t(\theta_0)\|}
        + \frac{\max_t f_t - \sum_t \lambda_t f_t}{\max_t |f_t|}

    Args:
        risks: Risks of the tasks by parameters: shape [T] from shape [d], float64.
        theta: Parameters, shape [d].
        start: Parameters at which the gradients' unit is taken, shape [d].
    """
    tiny = torch.finfo(theta.dtype).tiny  # for a start at the optimum
    weights, values = multipliers(risks, theta), risks(theta)
    steepest = torch.linalg.vector_norm(jacrev(risks)(start), dim=1).max().clamp(min=tiny)
    stationarity = torch.linalg.vector_norm(weights @ jacrev(risks)(theta)) / steepest
    slackness = (values.max() - weights @ values) / values.abs().max().clamp(min=tiny)
    return float(stationarity + slackness)


def multipliers(risks: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    r"""Weights of the tasks that prove parameters optimal, or nearly so.

    The convex combination whose weighted gradient is smallest while the weights sit on the worst tasks. At the optimum,
    :math:`\sum_t \lambda_t \nabla f_t = 0` and :math:`\sum_t \lambda_t f_t = \max_t f_t`.

    Args:
        risks: Risks of the tasks by parameters: shape [T] from shape [d], float64.
        theta: Parameters, shape [d].

    Returns:
        The weights :math:`\lambda`, shape [T], which sum to one.
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
    r"""Towards parameters at which the active tasks' risks agree and their weighted gradients cancel."""
    weights, values = multipliers(risks, theta), risks(theta)
    on_top = values.max() - values <= 1e-6 * values.abs().max()
    active = torch.nonzero((weights > 1e-5) & on_top).flatten()
    curvature = jacrev(jacrev(lambda theta: weights @ risks(theta)))(theta).numpy()
    gradients = jacrev(risks)(theta)[active].numpy()
    d, count = len(theta), len(active)
    ones = np.ones((1, count))
    # Unknown are the step, minus the common risk and the weights.
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
