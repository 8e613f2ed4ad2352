from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.studies.theory.algorithm import Risks
from taskrobust.studies.theory.smooth_max import tilted_mean


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


def _value_and_gradient(
    point: NDArray[np.float64], risks: Risks, unit: float, alpha: float, dtype: torch.dtype
) -> tuple[float, NDArray[np.float64]]:
    theta = torch.from_numpy(point).to(dtype).requires_grad_()
    value = tilted_mean(risks(theta) / unit, alpha)
    (gradient,) = torch.autograd.grad(value, theta)
    return value.item(), gradient.double().numpy()
