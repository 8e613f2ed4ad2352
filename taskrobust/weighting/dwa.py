import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting


class DWA(Weighting):
    r"""Dynamic weight average: weighs tasks by how slowly their risks fell from one period to the next.

    .. math:: w_t = T \operatorname{softmax}_t \left( \frac{\bar r_t(p - 1)}{\bar r_t(p - 2)} \Big/ \tau \right)

    :math:`\bar r_t(p)` is the mean risk over period p. The ratio of a task that was not seen in two periods is 1, so
    the first two periods weigh all tasks alike.

    Args:
        num_tasks: Number of tasks T.
        temperature: :math:`\tau`. The larger, the more alike the weights.
        period: Steps in a period. None takes epochs, as the paper does: the training loop calls :meth:`end_epoch`.

    Raises:
        ValueError: If ``temperature`` or ``period`` is not positive.

    References:
        Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, equation 7.
    """

    period_sums: Tensor
    period_batches: Tensor
    means: Tensor
    step: Tensor

    def __init__(self, num_tasks: int, temperature: float = 2.0, period: int | None = 100) -> None:
        super().__init__(num_tasks)
        if temperature <= 0 or (period is not None and period <= 0):
            raise ValueError(f"Expected a positive temperature and period, got {temperature} and {period}.")
        self.temperature = temperature
        self.period = period
        self.register_buffer("period_sums", torch.zeros(num_tasks))
        self.register_buffer("period_batches", torch.zeros(num_tasks))
        self.register_buffer("means", torch.zeros(2, num_tasks))  # of the last period and of the one before it
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Softmax of the ratios of the last two periods' means, times T."""
        last, before = self.means
        ratios = torch.where(before > 0, last / before, 1)
        return self.num_tasks * (ratios / self.temperature).softmax(0)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Add the risks of the present tasks to the period, and end it when its steps are over."""
        present = counts > 0
        self.period_sums.add_(torch.where(present, risks, 0))
        self.period_batches.add_(present.float())
        self.step.add_(1)
        if self.period is not None:
            self._end_period(self.step % self.period == 0)

    @torch.no_grad()
    def end_epoch(self) -> None:
        """End the period if it is an epoch."""
        if self.period is None:
            self._end_period(torch.ones_like(self.step, dtype=torch.bool))

    def _end_period(self, ends: Tensor) -> None:
        last = self.means[0]
        mean = torch.where(self.period_batches > 0, self.period_sums / self.period_batches.clamp(min=1), last)
        self.means.copy_(torch.where(ends, torch.stack([mean, last]), self.means))
        self.period_sums.mul_(~ends)
        self.period_batches.mul_(~ends)
