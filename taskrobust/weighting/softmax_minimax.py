import math
from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_mean, masked_softmax
from taskrobust.weighting.schedules import Constant, Schedule


class SoftmaxMinimax(Weighting):
    r"""Weights each task by the softmax of its risk, so that the worst task leads.

    .. math:: w_t = \frac{\exp(\alpha r_t / u)}{\sum_j \exp(\alpha r_j / u)}, \qquad L = \sum_t w_t r_t, \qquad
        u = \frac1T \sum_j |r_j|

    With ``relative=False``, u is 1: equation 7 of the paper, whose :math:`\alpha` is in one over the unit of the risks
    and therefore does little on small losses and everything on large ones. Relative to the mean risk, the same
    :math:`\alpha` means the same for losses in any unit: a task whose risk exceeds another's by a tenth of the mean has
    :math:`e^{\alpha / 10}` times its weight. The weighted risk is less than the worst by at most
    :math:`u \log T / \alpha`. As risks fall during training, :math:`\alpha / u` grows, as Theorem 3.1 asks for.

    The weights carry no gradient, so :math:`\nabla L` at a given u is that of
    :math:`\frac u\alpha \log \sum_t \exp(\alpha r_t / u)`. The tasks' risks must still be comparable with each other:
    where their losses have different units, use ``RiskEstimator(normalization=...)``.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], SoftmaxMinimax(alpha=1.0, relative=False))
        >>> _ = criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.73, 'verb': 0.27}

    Args:
        alpha: Inverse temperature, in one over u: a number or a schedule over steps. 0 weights all tasks alike,
            infinity selects the worst.
        relative: Whether u is the mean absolute risk of the tasks that are present. Otherwise it is 1.
        hard: Whether the worst task has all weight, whatever ``alpha``. Tasks that are equally bad share it.

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
        """No steps."""
        return {"step": torch.zeros((), dtype=torch.int64)}

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Softmax of the risks of the present tasks."""
        if self.hard or self.alpha == math.inf:
            present_risks = risks.masked_fill(counts <= 0, -torch.inf)
            worst = (present_risks == present_risks.max()).float()
            return worst / worst.sum()
        alpha = self._schedule(self.step)
        if self.relative:
            risks = risks / masked_mean(risks.abs(), counts).clamp(min=torch.finfo(torch.float32).tiny)
        return masked_softmax(risks, counts, alpha)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Count the step, for the schedule."""
        self.step.add_(1)
