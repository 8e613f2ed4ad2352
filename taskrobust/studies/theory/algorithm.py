"""Algorithm 1, and the smooth maximum that it minimizes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from taskrobust.weighting import Schedule, SoftmaxMinimax, Weighting

Risks = Callable[[Tensor], Tensor]
"""Maps parameters of shape [d] to the risks of the tasks, shape [T]."""


@dataclass(frozen=True)
class Iterates:
    """The average and the last of the iterates of an algorithm.

    Example:
        >>> take(iter([torch.zeros(2), torch.ones(2)]), steps=2)
        Iterates(average=tensor([0.5000, 0.5000]), last=tensor([1., 1.]))

    Args:
        average: Mean of the iterates, shape [d]. Theorem 3.1 bounds its gap.
        last: The last iterate, shape [d].
    """

    average: Tensor
    last: Tensor


def take(iterates: Iterator[Tensor], steps: int) -> Iterates:
    r"""Compute the average and the last of the first K iterates.

    .. math:: \frac1K \sum_{k<K} \theta_k, \qquad \theta_{K-1}

    Args:
        iterates: The iterates of an algorithm, each of shape [d].
        steps: Number of iterates K, at least 1.
    """
    last = next(iterates)
    total = last.clone()
    for last in islice(iterates, steps - 1):
        total += last
    return Iterates(total / steps, last)


def weighted_gradient_descent(risks: Risks, start: Tensor, weighting: Weighting, step_size: float) -> Iterator[Tensor]:
    r"""Yield the iterates of gradient descent on the weighted risk, starting with the initial parameters, without end.

    .. math:: \theta_{k+1} = \theta_k - \eta \sum_t w_t(\theta_k) \nabla f_t(\theta_k)

    Args:
        risks: Function from parameters to the risks of the tasks.
        start: Initial parameters :math:`\theta_0`, shape [d].
        weighting: A new strategy that depends only on the risks.
        step_size: :math:`\eta`, in squared units of the parameters per unit of the risks.
    """
    theta = start.detach()
    counts = torch.ones(len(risks(theta)))
    weighting.setup([str(number) for number in range(len(counts))]).to(start.dtype)
    while True:
        yield theta
        theta = theta.clone().requires_grad_()
        values = risks(theta)
        weights = weighting.weights(values.detach(), counts).to(values)
        weighting.update(values.detach(), counts)
        (gradient,) = torch.autograd.grad(weights @ values, theta)
        theta = theta.detach() - step_size * gradient


def softmax_weighted_gradient_descent(
    risks: Risks, start: Tensor, alpha: float | Schedule, step_size: float
) -> Iterator[Tensor]:
    r"""Yield the iterates of Algorithm 1.

    .. math:: \theta_{k+1} = \theta_k - \eta \sum_t \frac{\exp(\alpha_k f_t(\theta_k))}{\sum_j \exp(\alpha_k
        f_j(\theta_k))} \nabla f_t(\theta_k)

    No projection is needed: under Theorem 3.1, the iterates stay within :math:`2 R_0` of the optimum.
    :math:`\alpha_k` is used with :math:`\theta_k`, as in the proof (B.1.1), whereas the listing of Algorithm 1 pairs it
    with :math:`\theta_{k-1}`.

    Args:
        risks: Function from parameters to the risks of the tasks.
        start: Initial parameters :math:`\theta_0`, shape [d].
        alpha: Inverse temperature, a number or a schedule over steps. The guarantee requires ``Theorem31``,
            ``Entropic`` or ``Sharp``.
        step_size: :math:`\eta`. :func:`~taskrobust.studies.theory.bounds.step_size` computes that of the theorem.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Algorithm 1.
    """
    return weighted_gradient_descent(risks, start, SoftmaxMinimax(alpha, relative=False), step_size)


def tilted_mean(risks: Tensor, alpha: float) -> Tensor:
    r"""Compute a smooth maximum of the risks, between their mean and their maximum.

    .. math:: \frac1\alpha \log \frac1T \sum_t \exp(\alpha r_t) = \max_q \langle q, r \rangle - \frac1\alpha
        \mathrm{KL}(q \| \text{uniform})

    Its gradient equals that of the softmax-weighted risk with detached weights, so softmax weighted gradient descent is
    gradient descent on it. Accurate to six digits in float32 for alpha from 1e-8 to 1e4.

    Args:
        risks: Risks of the tasks, shape [T].
        alpha: Nonnegative inverse temperature, in inverse units of the risks. 0 gives the mean, infinity the worst
            risk.

    Returns:
        The smooth maximum, shape [].
    """
    if alpha == 0:
        return risks.mean()
    if alpha == math.inf:
        return risks.max()
    mean = risks.mean()
    tilts = alpha * (risks - mean)
    near_mean = mean + tilts.clamp(-1, 1).expm1().mean().log1p() / alpha  # logsumexp would cancel
    near_max = ((alpha * risks).logsumexp(0) - math.log(len(risks))) / alpha
    return torch.where(tilts.abs().max() < 1, near_mean, near_max)
