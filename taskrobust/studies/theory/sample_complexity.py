r"""The number of samples that a downstream task needs, given its initial parameters.

Inputs are normal, :math:`x \sim N(0, I_d)`, and the tasks are linear regressions without noise,
:math:`\ell_t(\theta) = \frac12 \langle x, \theta - \theta_t^* \rangle^2`, with risk
:math:`\frac12 \|\theta - \theta_t^*\|^2`. A downstream task is a convex combination of them, so that its optimum is the
same combination of their optima. It is trained on n samples by gradient descent until convergence.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.studies.theory.exact import epigraph_solution


def outlier_tasks(num_tasks: int = 10, dimension: int = 40, spread: float = 1.1, outlier: float = 3.93) -> Tensor:
    """Create the optima of T - 1 similar tasks and an outlier.

    Args:
        num_tasks: Number of tasks T, at least 3.
        dimension: Number of parameters d, at least T.
        spread: Distance of the similar tasks from their center, the origin. Their pairwise distances are equal.
        outlier: Distance of the outlier from the origin, orthogonal to the differences of the similar tasks.

    Returns:
        Optima, shape [T, d], the outlier last.

    Raises:
        ValueError: If ``num_tasks`` is not from 3 to ``dimension``.
    """
    if not 3 <= num_tasks <= dimension:
        raise ValueError(f"Expected from 3 to {dimension} tasks for {dimension} parameters, got {num_tasks}.")
    others = num_tasks - 1
    optima = torch.zeros(num_tasks, dimension, dtype=torch.float64)
    simplex = torch.eye(others, dtype=torch.float64) - 1 / others
    optima[:others, :others] = spread / math.sqrt(1 - 1 / others) * simplex
    optima[others, others] = outlier
    return optima


def average_start(optima: Tensor) -> Tensor:
    """Compute the parameters with the smallest mean risk, equation 4: the mean of the optima.

    Args:
        optima: Optima of the tasks, shape [T, d].
    """
    return optima.mean(0)


def minimax_start(optima: Tensor) -> Tensor:
    """Compute the parameters with the smallest worst risk, equation 5: the center of the smallest enclosing ball.

    Args:
        optima: Optima of the tasks, shape [T, d].
    """
    return epigraph_solution(lambda theta: (theta - optima).square().sum(1) / 2, optima.mean(0))


def downstream_optima(optima: Tensor, number: int, seed: int, concentration: float = 0.25) -> Tensor:
    """Draw the optima of downstream tasks, which are convex combinations of upstream ones.

    Means over downstream tasks depend on the distribution of their weights, a symmetric Dirichlet distribution.

    Args:
        optima: Optima of the upstream tasks, shape [T, d].
        number: Number of downstream tasks.
        seed: Seed of the draws.
        concentration: Concentration of the Dirichlet distribution. With 1, all combinations are equally likely, and
            most are close to the average of many tasks. With 0.25, a task mostly combines two or three of ten.

    Returns:
        Optima, shape [number, d].
    """
    combinations = np.random.default_rng(seed).dirichlet(np.full(len(optima), concentration), number)
    return torch.from_numpy(combinations) @ optima


def samples_needed(risks: NDArray[np.float64], eps: float, delta: float, dimension: int) -> NDArray[np.int64]:
    r"""Compute the exact smallest number of samples with which the excess risk is small with high probability.

    Gradient descent converges to the solution of the samples' equations that is nearest to the initial parameters. The
    remaining error is the projection of the initial one onto the orthogonal complement of the samples:

    .. math:: f(\hat\theta) - f^* = f(\theta_0) \cdot \mathrm{Beta}\big(\tfrac{d - n}{2}, \tfrac n2\big)

    Args:
        risks: Excess risks of the initial parameters, any shape.
        eps: Target excess risk.
        delta: Probability of missing it, between 0 and 1.
        dimension: Number of parameters d.

    Returns:
        Numbers from 0 to d, in the shape of the risks.

    Raises:
        ValueError: If ``delta`` is not between 0 and 1.
    """
    from scipy.stats import beta

    if not 0 < delta < 1:
        raise ValueError(f"Expected a delta between 0 and 1, got {delta}.")
    numbers = np.arange(1, dimension)
    left = beta.ppf(1 - delta, (dimension - numbers) / 2, numbers / 2)
    succeeds = risks[..., None] * left <= eps
    first = np.where(succeeds.any(-1), succeeds.argmax(-1) + 1, dimension)
    return np.where(risks <= eps, 0, first)


def simulated_samples_needed(way: Tensor, eps: list[float], delta: float, trials: int, seed: int) -> list[int]:
    """Estimate the same number by Monte Carlo: the number of samples is increased until enough trials succeed.

    Orthogonalizing the samples one by one yields the limit of gradient descent for each number of them.

    Args:
        way: Optimum minus initial parameters, shape [d].
        eps: Target excess risks.
        delta: Probability of missing them.
        trials: Number of data sets.
        seed: Seed of the samples.

    Returns:
        Number of samples for each of ``eps``.
    """
    d = len(way)
    samples = torch.randn(trials, d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions = torch.linalg.qr(samples.mT).Q
    covered = (way @ directions).square().cumsum(1)
    left = (way.square().sum() - torch.cat([torch.zeros_like(covered[:, :1]), covered], dim=1)) / 2
    return [int(((left <= limit).double().mean(0) >= 1 - delta).byte().argmax()) for limit in eps]
