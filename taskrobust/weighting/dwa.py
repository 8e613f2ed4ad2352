import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting


class DWA(Weighting):
    r"""Dynamic weight average: weights tasks by how slowly their risks decrease from period to period.

    .. math:: w_t = T \operatorname{softmax}_t \left( \frac{\bar r_t(p - 1)}{\bar r_t(p - 2)} \Big/ \tau \right)

    :math:`\bar r_t(p)` is the mean risk in period p. The ratio is 1 for tasks not yet seen in two periods, so all
    weights are equal in the first two periods. Risks must be positive.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], DWA(period=1))
        >>> for noun in (4.0, 1.0, 1.0):
        ...     _ = criterion({"noun": torch.tensor(noun), "verb": torch.tensor(2.0)})
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.41, 'verb': 0.59}

    Args:
        temperature: Temperature :math:`\tau`. Larger values make the weights more uniform.
        period: Number of steps per period. None uses epochs as in the paper and requires calls of
            ``MultiTaskLoss.end_epoch``.

    Raises:
        ValueError: If ``temperature`` or ``period`` is not positive.

    References:
        Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, equation 7.
    """

    period_sums: Tensor
    period_batches: Tensor
    means: Tensor
    step: Tensor

    smallest_risk = 0.0
    patience = 10_000  # steps without the end of an epoch before a warning

    def __init__(self, temperature: float = 2.0, period: int | None = 100) -> None:
        super().__init__()
        if temperature <= 0 or (period is not None and period <= 0):
            raise ValueError(f"Expected a positive temperature and period, got {temperature} and {period}.")
        self.temperature = temperature
        self.period = period
        self._unended_steps = 0

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return empty periods."""
        return {
            "period_sums": torch.zeros(self.num_tasks),
            "period_batches": torch.zeros(self.num_tasks),
            "means": torch.zeros(2, self.num_tasks),  # of the last period and the one before it
            "step": torch.zeros((), dtype=torch.int64),
        }

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute T times the softmax of the ratios of the last two periods' means."""
        last, before = self.means
        ratios = torch.where(before > 0, last / before, 1)
        return self.num_tasks * (ratios / self.temperature).softmax(0)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Add the risks of the present tasks to the period, and end it after its last step."""
        present = counts > 0
        self.period_sums.add_(torch.where(present, risks, 0))
        self.period_batches.add_(present.float())
        self.step.add_(1)
        if self.period is not None:
            self._end_period(self.step % self.period == 0)
        elif not torch.compiler.is_compiling():
            self._unended_steps += 1
            if self._unended_steps == self.patience:
                warnings.warn(
                    f"DWA(period=None) has not seen the end of an epoch for {self.patience} steps, so that its weights "
                    "do not change. Call criterion.end_epoch() after each epoch, or set period to a number of steps.",
                    stacklevel=2,
                )

    @torch.no_grad()
    def end_epoch(self) -> None:
        """End the period if it is an epoch."""
        self._unended_steps = 0
        if self.period is None:
            self._end_period(torch.ones_like(self.step, dtype=torch.bool))

    def _end_period(self, ends: Tensor) -> None:
        last = self.means[0]
        mean = torch.where(self.period_batches > 0, self.period_sums / self.period_batches.clamp(min=1), last)
        self.means.copy_(torch.where(ends, torch.stack([mean, last]), self.means))
        self.period_sums.mul_(~ends)
        self.period_batches.mul_(~ends)
