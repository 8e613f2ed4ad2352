"""What else minimizes a maximum: the algorithms of the field, to compare with and to pick instead."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.studies.theory.algorithm import Risks, tilted_mean, weighted_gradient_descent
from taskrobust.weighting import GroupDRO, SoftmaxMinimax


def subgradient_descent(risks: Risks, start: Tensor, step_size: float) -> Iterator[Tensor]:
    r"""Iterates of descent on the worst task alone.

    .. math:: \theta_{k+1} = \theta_k - \eta \nabla f_{t_k}(\theta_k), \quad t_k \in \arg\max_t f_t(\theta_k)

    The limit of Algorithm 1 for :math:`\alpha \to \infty`, with the bound :math:`R_0 L' / \sqrt K` at its step size.

    Args:
        risks: Risks of the tasks by parameters.
        start: First parameters, shape [d].
        step_size: :math:`\eta`.

    References:
        Bubeck, Convex Optimization: Algorithms and Complexity, 2015, section 3.1.
    """
    return weighted_gradient_descent(risks, start, SoftmaxMinimax(hard=True), step_size)


def exponentiated_gradient(risks: Risks, start: Tensor, step_size: float, weight_step_size: float) -> Iterator[Tensor]:
    r"""Iterates of descent on the parameters against exponentiated gradient ascent on the weights (online group DRO).

    .. math:: q_t \propto q_t \exp(\eta_q f_t(\theta_k)), \qquad
        \theta_{k+1} = \theta_k - \eta \sum_t q_t \nabla f_t(\theta_k)

    The average of the iterates converges, the last one circles around the optimum.

    Args:
        risks: Risks of the tasks by parameters.
        start: First parameters, shape [d].
        step_size: :math:`\eta`.
        weight_step_size: :math:`\eta_q`, in one over the unit of the risks; the theory's is
            :math:`\sqrt{2 \log T / K} / B`.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, Algorithm 1.
    """
    return weighted_gradient_descent(risks, start, GroupDRO(weight_step_size), step_size)


def mirror_prox(risks: Risks, start: Tensor, radius: float, lipschitz: float, smoothness: float) -> Iterator[Tensor]:
    r"""Iterates of the extragradient method with entropy on the weights: a rate of 1/K at two gradients a step.

    Every step is taken twice from the same place, first with the gradients there, then with those found. The iterates
    are the places in between.

    Args:
        risks: Risks of the tasks by parameters, smooth.
        start: First parameters, shape [d].
        radius: Distance :math:`R_0` from the first parameters to the optimum.
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
    r"""Iterates of Nesterov's accelerated descent on the smooth maximum :func:`tilted_mean`.

    The smooth maximum has curvature :math:`L + \alpha L'^2` at most and misses the worst risk by
    :math:`\log T / \alpha`: with :math:`\alpha = K \sqrt{\log(T) / 2} / (R_0 L')` the last iterate's gap falls as 1/K.

    Args:
        risks: Risks of the tasks by parameters, smooth.
        start: First parameters, shape [d].
        alpha: Inverse temperature, in one over the unit of the risks.
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
    r"""Minimize the worst risk of a small convex problem: quasi-Newton on ever sharper smooth maxima.

    The gap of the last smooth maximum is at most :math:`\log T / \alpha` times the spread of the first risks. Needs no
    constant of the problem; for a model with minibatches, train with :class:`~taskrobust.SoftmaxMinimax` instead.

    Args:
        risks: Risks of the tasks by parameters: shape [T] from shape [d], any dtype. Float64 is wanted for the last
            digits.
        start: First parameters, shape [d].
        alphas: Inverse temperatures, one after the other, in one over the spread of the risks at the start, so
            that their unit does not matter. (Over the largest of them, where all are equal.)
        max_steps: Most steps at each of them.

    Returns:
        The parameters, shape [d].
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
    """The risks, and the gradient of their mean under weights."""
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
