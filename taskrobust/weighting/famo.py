from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from taskrobust._state import FixedTensor
from taskrobust.weighting._adam import BufferAdam
from taskrobust.weighting.base import Weighting


class FAMO(Weighting):
    r"""Fast adaptive multitask optimization: decreases all risks at the same rate, using only their values.

    .. math::
        z = \operatorname{softmax}(\xi), \qquad
        w_t = c \frac{z_t}{r_t - b_t}, \qquad c = \Big( \sum_t \frac{z_t}{r_t - b_t} \Big)^{-1}, \qquad
        \nabla_\xi = J_z^\top \big( \log (r - b) - \log (r^+ - b) \big)

    :math:`r^+` are the risks after the step. They are obtained from the next batch at no cost, whereas the authors'
    code evaluates the model twice on the same batch. As a result, the logits lag by one step. Smoothed risks
    compensate for the noise between batches.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], FAMO())
        >>> _ = criterion({"noun": torch.tensor(4.0), "verb": torch.tensor(1.0)})
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.2, 'verb': 0.8}

    Args:
        lr: Learning rate of the logits :math:`\xi`.
        weight_decay: Coefficient of :math:`\xi` in its gradient.
        lower_bound: Lower bound :math:`b_t` of the risks, one for all or one per task. Smaller risks raise an error.

    Raises:
        ValueError: If there is another number of lower bounds than of tasks.

    References:
        Liu et al., FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023, Algorithm 1.
    """

    logits: Tensor
    log_risks: Tensor
    seen: Tensor

    def __init__(
        self, lr: float = 0.025, weight_decay: float = 1e-3, lower_bound: float | Sequence[float] = 0.0
    ) -> None:
        super().__init__()
        self.lr = lr
        self.weight_decay = weight_decay
        self.lower_bound = self.smallest_risk = lower_bound
        self.adam = BufferAdam(lr, weight_decay)

    def setup(self, tasks: Sequence[str]) -> Self:
        """Check that there is one lower bound, or one per task."""
        super().setup(tasks)
        if isinstance(self.lower_bound, (int, float)):
            self._bounds = FixedTensor([self.lower_bound] * len(tasks))
        else:
            self._bounds = self.per_task("lower_bound")
        return self

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return equal logits."""
        return {
            "logits": torch.zeros(self.num_tasks),
            "log_risks": torch.zeros(self.num_tasks),
            "seen": torch.zeros(self.num_tasks, dtype=torch.bool),
        }

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the softmax of the logits divided by the gaps to the lower bound, scaled to sum 1."""
        present = counts > 0
        shares = torch.where(present, self.logits.softmax(0) / self._gap(risks), 0)
        return shares / shares.sum().clamp(min=1e-12)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Update the logits from the change of the risks in the last step, and store the risks."""
        present = counts > 0
        log_risks = self._gap(risks).log()
        known = present & self.seen
        decrease = torch.where(known, self.log_risks - log_risks, 0)
        z = self.logits.softmax(0)
        self.adam.step(self.logits, z * (decrease - (z * decrease).sum()), known)
        self.log_risks.copy_(torch.where(present, log_risks, self.log_risks))
        self.seen.logical_or_(present)

    def _gap(self, risks: Tensor) -> Tensor:
        return (risks - self._bounds.on(risks.device)).clamp(min=1e-8)
