import math
from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_mean, masked_softmax
from taskrobust.weighting.schedules import Constant, Schedule


class SoftmaxMinimax(Weighting):
    r"""Weights the tasks by the softmax of their risks, so that the worst task has the largest weight.

    .. math:: w_t = \frac{\exp(\alpha r_t / u)}{\sum_j \exp(\alpha r_j / u)}, \qquad L = \sum_t w_t r_t, \qquad
        u = \frac1T \sum_j |r_j|

    With ``relative=False``, u is 1, as in equation 7 of the paper. Then, :math:`\alpha` is in inverse units of the
    risks and has a weak effect for small losses and a strong one for large losses. With risks relative to their mean,
    the effect of :math:`\alpha` does not depend on the unit: if the risk of a task exceeds that of another by a tenth
    of the mean, its weight is :math:`e^{\alpha / 10}` times as large. The weighted risk is at most :math:`u \log T /
    \alpha` below the worst one. As the risks decrease during training, :math:`\alpha / u` grows, as required by Theorem
    3.1.

    The weights are detached, so :math:`\nabla L` at a given u is the gradient of
    :math:`\frac u\alpha \log \sum_t \exp(\alpha r_t / u)`. The risks of the tasks must be comparable with each other.
    If their losses have different units, use ``RiskEstimator(normalization=...)``.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], SoftmaxMinimax(alpha=1.0, relative=False))
        >>> _ = criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.73, 'verb': 0.27}

    Args:
        alpha: Inverse temperature in inverse units of u, a number or a schedule over steps. 0 weights all tasks
            equally, infinity selects the worst one.
        relative: Whether u is the mean absolute risk of the present tasks. Otherwise, u is 1.
        hard: Whether to give all weight to the worst task regardless of ``alpha``. Ties share the weight.

    Raises:
        ValueError: If ``alpha`` is negative.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, equation 7 and
        Algorithm 1.
    """

    step: Tensor

    def __init__(self, alpha: float | Schedule = 3.0, relative: bool = True, hard: bool = False) -> None:
        super().__init__()
        if isinstance(alpha, (int, float)) and not alpha >= 0:
            raise ValueError(f"Expected alpha >= 0, got {alpha}.")
        self.alpha = alpha
        self.relative = relative
        self.hard = hard
        self._schedule = alpha if isinstance(alpha, Schedule) else Constant(alpha)

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return a step count of 0."""
        return {"step": torch.zeros((), dtype=torch.int64)}

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the softmax of the risks of the present tasks."""
        if self.hard or self.alpha == math.inf:
            present_risks = risks.masked_fill(counts <= 0, -torch.inf)
            worst = (present_risks == present_risks.max()).float()
            return worst / worst.sum()
        alpha = self._schedule(self.step)
        if self.relative:
            risks = risks / masked_mean(risks.abs(), counts).clamp(min=torch.finfo(torch.float32).tiny)
        return masked_softmax(risks, counts, alpha)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Increment the step of the schedule."""
        self.step.add_(1)
