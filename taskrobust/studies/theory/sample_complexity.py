r"""How many samples a downstream task needs, by the parameters that its training starts from.

Inputs are normal, :math:`x \sim N(0, I_d)`, and the tasks linear regressions without noise:
:math:`\ell_t(\theta) = \frac12 \langle x, \theta - \theta_t^* \rangle^2`, with risk
:math:`\frac12 \|\theta - \theta_t^*\|^2`. A downstream task is a convex combination of them, so its optimum is the same
combination of theirs. It is trained by gradient descent to convergence on n samples.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.studies.theory.exact import epigraph_solution


def outlier_tasks(num_tasks: int = 10, dimension: int = 40, spread: float = 1.1, outlier: float = 3.93) -> Tensor:
    """Optima of T - 1 tasks that are alike and of one that is not. Shape [T, d], the outlier last.

    Args:
        num_tasks: Number of tasks T, 3 at least.
        dimension: Number of parameters d, T at least.
        spread: Distance of each of the tasks that are alike from their center, the origin. They are all as far from one
            another.
        outlier: Distance of the outlier from that center, at a right angle to the differences of the others.

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
    """Parameters of the smallest mean risk, equation 4: the mean of the optima.

    Args:
        optima: Optima of the tasks, shape [T, d].
    """
    return optima.mean(0)


def minimax_start(optima: Tensor) -> Tensor:
    """Parameters of the smallest worst risk, equation 5: the center of the smallest ball around the optima.

    Args:
        optima: Optima of the tasks, shape [T, d].
    """
    return epigraph_solution(lambda theta: (theta - optima).square().sum(1) / 2, optima.mean(0))


def downstream_optima(optima: Tensor, number: int, seed: int, concentration: float = 0.25) -> Tensor:
    """Optima of downstream tasks drawn from the convex combinations of upstream ones. Shape [number, d].

    Weights are drawn from a symmetric Dirichlet distribution, on which the mean over downstream tasks depends.

    Args:
        optima: Optima of the upstream tasks, shape [T, d].
        number: Number of downstream tasks.
        seed: Seed of the draw.
        concentration: Of the Dirichlet distribution. 1 draws uniformly from all combinations, which is close to the
            average of many tasks; with 0.25, a task mostly combines two or three of ten.
    """
    combinations = np.random.default_rng(seed).dirichlet(np.full(len(optima), concentration), number)
    return torch.from_numpy(combinations) @ optima


def samples_needed(risks: NDArray[np.float64], eps: float, delta: float, dimension: int) -> NDArray[np.int64]:
    r"""Smallest number of samples after which the excess risk is small with high probability, exactly.

    Gradient descent ends at the solution of the samples' equations that is nearest to the first parameters. What it
    leaves of the way is the projection onto the directions that no sample shows:

    .. math:: f(\hat\theta) - f^* = f(\theta_0) \cdot \mathrm{Beta}\big(\tfrac{d - n}{2}, \tfrac n2\big)

    Args:
        risks: Excess risks of the first parameters, any shape.
        eps: Excess risk that is good enough.
        delta: Probability that it is not reached, between 0 and 1.
        dimension: Number of parameters d.

    Returns:
        The numbers, of the risks' shape, from 0 to d.

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
    """The same number by Monte Carlo: tasks are trained on ever more samples until enough trials succeed.

    The samples are made orthogonal one by one, which gives what gradient descent ends at for every number of them.

    Args:
        way: Optimum minus first parameters, shape [d].
        eps: Excess risks that are good enough.
        delta: Probability that they are not reached.
        trials: Number of data sets.
        seed: Seed of the samples.

    Returns:
        The number of samples for each of ``eps``.
    """
    d = len(way)
    samples = torch.randn(trials, d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions = torch.linalg.qr(samples.mT).Q
    covered = (way @ directions).square().cumsum(1)
    left = (way.square().sum() - torch.cat([torch.zeros_like(covered[:, :1]), covered], dim=1)) / 2
    return [int(((left <= limit).double().mean(0) >= 1 - delta).byte().argmax()) for limit in eps]
