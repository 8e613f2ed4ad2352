"""The paper's bounds, and sharper ones."""

import math
from collections.abc import Sequence


def step_size(radius: float, lipschitz: float, steps: int) -> float:
    r"""Compute the constant step size of Theorem 3.1, :math:`\eta = R_0 / (L' \sqrt K)`.

    Args:
        radius: Distance :math:`R_0` from the initial parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the risks.
        steps: Number of iterates K.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Theorem 3.1.
    """
    return radius / (lipschitz * math.sqrt(steps))


def convergence_bound(radius: float, lipschitz: float, steps: int) -> float:
    r"""Compute the bound :math:`2 R_0 L' / \sqrt K` on the gap of the averaged iterate, equation 8.

    It holds for the schedules ``Theorem31``, ``Entropic`` and ``Sharp``, since the proof only requires that the
    weighted risk is at most :math:`R_0 L' / (2 \sqrt{k + 1})` below the worst one. Appendix B.1.1 states this as
    :math:`F_k(\theta_k) \ge F(\theta_k) + \dots` and the optimum as an argmax; the correct forms have a minus and an
    argmin.

    Args:
        radius: Distance :math:`R_0` from the initial parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the risks.
        steps: Number of iterates K.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Theorem 3.1.
    """
    return 2 * radius * lipschitz / math.sqrt(steps)


def constant_alpha_bound(radius: float, lipschitz: float, steps: int, num_tasks: int, alpha: float) -> float:
    r"""Compute the bound on the gap of the averaged iterate at a constant inverse temperature.

    .. math:: \frac{R_0 L'}{\sqrt K} + \frac{W_0((T - 1)/e)}{\alpha}

    The second term does not decrease with K: with :math:`\alpha = 1`, which Remark 3.3 recommends in practice, a gap
    remains.

    Args:
        radius: Distance :math:`R_0` from the initial parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the risks.
        steps: Number of iterates K.
        num_tasks: Number of tasks T.
        alpha: Inverse temperature, in inverse units of the risks.
    """
    return radius * lipschitz / math.sqrt(steps) + softmax_gap(num_tasks, alpha)


def softmax_gap(num_tasks: int, alpha: float) -> float:
    r"""Compute the largest possible difference between the worst risk and the softmax-weighted one.

    .. math:: \max_f \Big(\max_t f_t - \sum_t w_t f_t\Big) = \frac{W_0((T - 1)/e)}{\alpha} \le \frac{\log T}{\alpha}

    It is attained if T - 1 tasks have the same risk, :math:`(1 + W_0) / \alpha` below the worst one.

    Args:
        num_tasks: Number of tasks T.
        alpha: Inverse temperature, in inverse units of the risks.

    Raises:
        ValueError: If ``alpha`` is not positive.
    """
    from scipy.special import lambertw

    if alpha <= 0:
        raise ValueError(f"Expected a positive alpha, got {alpha}.")
    return float(lambertw((num_tasks - 1) / math.e).real) / alpha


def descent_radius(initial_risk: float, strong_convexity: float, least_risk: float = 0.0) -> float:
    r"""Bound the distance between the iterates of gradient descent and the optimum.

    .. math:: \|\theta_k - \theta^*\| \le \sqrt{\frac2\mu (f(\theta_0) - f(\theta^*))} \quad \text{for } \eta \le 1/L

    Good initial parameters thus act as a regularizer: training never leaves a small ball. (Equation 11 omits
    :math:`f(\theta^*)`, which is zero for upstream tasks but not for their mixtures. Its ball is larger.)

    Args:
        initial_risk: Risk :math:`f(\theta_0)` of the initial parameters.
        strong_convexity: Strong convexity :math:`\mu`.
        least_risk: The smallest risk :math:`f(\theta^*)`.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Proposition 5.3
        (equations 11 and 12).
    """
    return math.sqrt(2 / strong_convexity * (initial_risk - least_risk))


def sample_complexity_bound(
    worst_risk: float,
    dimension: int,
    bound: float,
    lipschitz: float,
    strong_convexity: float,
    eps: float,
    delta: float,
    ball_in_domain: bool = True,
) -> float:
    r"""Compute a number of samples that suffices for each downstream task, given the worst initial risk.

    .. math:: \frac{8 d B^2}{\epsilon^2} \log\Big(1 + \frac{16 L'}{\epsilon}
        \sqrt{\frac2\mu \max_\lambda f_\lambda(\theta_0)}\Big) + \frac{8 B^2}{\epsilon^2} \log\frac2\delta

    Args:
        worst_risk: Worst risk of the initial parameters, on upstream or downstream tasks: both are the same, see
            :func:`worst_downstream_risk`.
        dimension: Number of parameters d.
        bound: Bound :math:`B` on the losses.
        lipschitz: Lipschitz constant :math:`L'` of the losses.
        strong_convexity: Strong convexity :math:`\mu` of the losses.
        eps: Target excess risk :math:`\epsilon`.
        delta: Probability :math:`\delta` of missing it, between 0 and 1.
        ball_in_domain: Whether the ball of equation 11 lies within the domain of the parameters. Otherwise, a net of
            their intersection must be twice as fine (32 instead of 16), since inequality 22 covers the whole ball.

    Raises:
        ValueError: If ``eps`` is not positive or ``delta`` not between 0 and 1.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Theorem 5.4
        (equation 13).
    """
    if eps <= 0 or not 0 < delta < 1:
        raise ValueError(f"Expected a positive eps and a delta between 0 and 1, got eps={eps}, delta={delta}.")
    fineness = 16 if ball_in_domain else 32
    ratio = fineness * lipschitz / eps * descent_radius(worst_risk, strong_convexity)
    return 8 * bound**2 / eps**2 * (dimension * math.log1p(ratio) + math.log(2 / delta))


def worst_downstream_risk(upstream_risks: Sequence[float]) -> float:
    r"""Compute the worst risk of parameters on any downstream task from their risks on the upstream tasks.

    .. math:: \max_{\lambda \in \Delta_T} \sum_t \lambda_t f_t(\theta) = \max_t f_t(\theta)

    If downstream tasks are convex combinations of upstream ones, the worst of them is an upstream task. Therefore, the
    minimax parameters have the smallest initial risk on the worst downstream task, smaller than or equal to that of
    the average (equation 10).

    Args:
        upstream_risks: Risks of the parameters on the upstream tasks.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Proposition 5.1.
    """
    return max(upstream_risks)
