import math

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_softmax
from taskrobust.weighting.schedules import Constant, Schedule


class SoftmaxMinimax(Weighting):
    r"""Weighs each task by the softmax of its risk, so that the worst task leads.

    .. math:: w_t = \frac{\exp(\alpha r_t)}{\sum_j \exp(\alpha r_j)}, \qquad L = \sum_t w_t r_t

    The weights carry no gradient, so :math:`\nabla L` is that of :math:`\frac1\alpha \log \sum_t \exp(\alpha r_t)`,
    which is also that of the tilted mean :math:`\frac1\alpha \log \frac1T \sum_t \exp(\alpha r_t)`. The softmax depends
    on the unit of the risks: tasks whose losses have different units want ``RiskEstimator(normalization=...)``.

    Args:
        num_tasks: Number of tasks T.
        alpha: Inverse temperature, in one over the unit of the risks: a number or a schedule over steps. 0 weighs all
            alike, infinity takes the worst.
        hard: Takes the worst task alone, whatever ``alpha``. Tasks that are equally bad share the weight.

    Raises:
        ValueError: If ``alpha`` is negative.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, equation 7 and
        Algorithm 1.
    """

    step: Tensor

    def __init__(self, num_tasks: int, alpha: float | Schedule = 1.0, hard: bool = False) -> None:
        super().__init__(num_tasks)
        if isinstance(alpha, (int, float)) and not alpha >= 0:
            raise ValueError(f"Expected alpha >= 0, got {alpha}.")
        self.hard = hard or alpha == math.inf
        self.alpha = alpha if isinstance(alpha, Schedule) else Constant(alpha)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Softmax of the risks of the present tasks."""
        if self.hard:
            present_risks = risks.masked_fill(counts <= 0, -torch.inf)
            worst = (present_risks == present_risks.max()).float()
            return worst / worst.sum()
        return masked_softmax(self.alpha(self.step) * risks, counts)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Count the step, for the schedule."""
        self.step.add_(1)
