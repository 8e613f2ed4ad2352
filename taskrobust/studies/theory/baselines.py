"""Other algorithms that minimize the worst risk."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.studies.theory.algorithm import Risks, tilted_mean, weighted_gradient_descent
from taskrobust.weighting import GroupDRO, SoftmaxMinimax


def subgradient_descent(risks: Risks, start: Tensor, step_size: float) -> Iterator[Tensor]:
    r"""Yield the iterates of gradient descent on the worst task.

    .. math:: \theta_{k+1} = \theta_k - \eta \nabla f_{t_k}(\theta_k), \quad t_k \in \arg\max_t f_t(\theta_k)

    This is the limit of Algorithm 1 for :math:`\alpha \to \infty`. With its step size, the gap of the average is at
    most :math:`R_0 L' / \sqrt K`.

    Args:
        risks: Function from parameters to the risks of the tasks.
        start: Initial parameters, shape [d].
        step_size: :math:`\eta`.

    References:
        Bubeck, Convex Optimization: Algorithms and Complexity, 2015, section 3.1.
    """
    return weighted_gradient_descent(risks, start, SoftmaxMinimax(hard=True), step_size)


def exponentiated_gradient(risks: Risks, start: Tensor, step_size: float, weight_step_size: float) -> Iterator[Tensor]:
    r"""Yield the iterates of online group DRO: gradient descent on the parameters, exponentiated ascent on the weights.

    .. math:: q_t \propto q_t \exp(\eta_q f_t(\theta_k)), \qquad
        \theta_{k+1} = \theta_k - \eta \sum_t q_t \nabla f_t(\theta_k)

    The average of the iterates converges, whereas the last one circles around the optimum.

    Args:
        risks: Function from parameters to the risks of the tasks.
        start: Initial parameters, shape [d].
        step_size: :math:`\eta`.
        weight_step_size: :math:`\eta_q`, in inverse units of the risks. The theory uses
            :math:`\sqrt{2 \log T / K} / B`.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, Algorithm 1.
    """
    return weighted_gradient_descent(risks, start, GroupDRO(weight_step_size), step_size)


def mirror_prox(risks: Risks, start: Tensor, radius: float, lipschitz: float, smoothness: float) -> Iterator[Tensor]:
    r"""Yield the iterates of mirror-prox with entropy on the weights, with a rate of 1/K at two gradients per step.

    Each step computes an intermediate point with the current gradients, and then starts again from the same point with
    the gradients at the intermediate point. The iterates are the intermediate points.

    Args:
        risks: Smooth function from parameters to the risks of the tasks.
        start: Initial parameters, shape [d].
        radius: Distance :math:`R_0` from the initial parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the risks.
        smoothness: Lipschitz constant :math:`L` of their gradients.

    References:
        Nemirovski, Prox-Method with Rate of Convergence O(1/t), SIAM Journal on Optimization 15, 2004.
    """
    entropy = math.log(len(risks(start)))
    pace = 1 / (radius**2 * smoothness + radius * lipschitz * math.sqrt(entropy))
    step_size, weight_step_size = pace * radius**2, pace * entropy
    theta, log_weights = start.detach(), torch.zeros_like(risks(start))
    while True:
        values, gradient = _weighted_gradient(risks, theta, log_weights)
        middle = theta - step_size * gradient
        values, gradient = _weighted_gradient(risks, middle, log_weights + weight_step_size * values)
        theta, log_weights = theta - step_size * gradient, log_weights + weight_step_size * values
        yield middle


def accelerated_log_sum_exp(
    risks: Risks, start: Tensor, alpha: float, lipschitz: float, smoothness: float
) -> Iterator[Tensor]:
    r"""Yield the iterates of Nesterov's accelerated gradient descent on the smooth maximum :func:`tilted_mean`.

    The smooth maximum has a curvature of at most :math:`L + \alpha L'^2` and differs from the worst risk by at most
    :math:`\log T / \alpha`. With :math:`\alpha = K \sqrt{\log(T) / 2} / (R_0 L')`, the gap of the last iterate
    decreases as 1/K.

    Args:
        risks: Smooth function from parameters to the risks of the tasks.
        start: Initial parameters, shape [d].
        alpha: Inverse temperature, in inverse units of the risks.
        lipschitz: Lipschitz constant :math:`L'` of the risks.
        smoothness: Lipschitz constant :math:`L` of their gradients.

    References:
        Nesterov, Smooth Minimization of Non-smooth Functions, Mathematical Programming 103, 2005.
    """
    step_size = 1 / (smoothness + alpha * lipschitz**2)
    theta = ahead = start.detach()
    momentum = 1.0
    while True:
        yield theta
        ahead = ahead.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(tilted_mean(risks(ahead), alpha), ahead)
        previous, theta = theta, ahead.detach() - step_size * gradient
        next_momentum = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = theta + (momentum - 1) / next_momentum * (theta - previous)
        momentum = next_momentum


def solve_minimax(
    risks: Risks, start: Tensor, alphas: Sequence[float] = (1, 10, 100, 1e3, 1e4, 1e5, 1e6), max_steps: int = 1000
) -> Tensor:
    r"""Minimize the worst risk of a small convex problem by L-BFGS on increasingly sharp smooth maxima.

    The gap of the last smooth maximum is at most :math:`\log T / \alpha` times the spread of the initial risks. No
    constants of the problem are needed. To train a model on minibatches, use :class:`~taskrobust.SoftmaxMinimax`.

    Args:
        risks: Function from parameters, shape [d], to the risks of the tasks, shape [T]. Any dtype; use float64 for
            high accuracy.
        start: Initial parameters, shape [d].
        alphas: Increasing inverse temperatures, in inverse units of the spread of the initial risks (or of the largest
            one if all are equal).
        max_steps: Maximum number of steps per inverse temperature.

    Returns:
        The optimal parameters, shape [d].
    """
    from scipy.optimize import minimize

    theta = start.detach()
    first = risks(theta).detach()
    unit = (first.max() - first.min()).item() or first.abs().max().item() or 1.0
    for alpha in alphas:
        found = minimize(
            _value_and_gradient,
            theta.double().numpy(),
            args=(risks, unit, alpha, start.dtype),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_steps, "gtol": 1e-12},
        )
        theta = torch.from_numpy(found.x).to(start.dtype)
    return theta


def _weighted_gradient(risks: Risks, theta: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the risks and the gradient of their weighted mean."""
    theta = theta.clone().requires_grad_()
    values = risks(theta)
    (gradient,) = torch.autograd.grad(log_weights.softmax(0) @ values, theta)
    return values.detach(), gradient


def _value_and_gradient(
    point: NDArray[np.float64], risks: Risks, unit: float, alpha: float, dtype: torch.dtype
) -> tuple[float, NDArray[np.float64]]:
    theta = torch.from_numpy(point).to(dtype).requires_grad_()
    value = tilted_mean(risks(theta) / unit, alpha)
    (gradient,) = torch.autograd.grad(value, theta)
    return value.item(), gradient.double().numpy()
