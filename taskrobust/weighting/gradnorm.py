import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from taskrobust.weighting._adam import BufferAdam
from taskrobust.weighting.base import Weighting, masked_mean


class GradNorm(Weighting):
    r"""Learns weights that adapt the gradient norms of the tasks at a shared layer to their training rates.

    .. math::
        G_t = w_t \lVert \nabla_W r_t \rVert, \qquad
        \rho_t = \frac{r_t / r_t(0)}{\operatorname{mean}_j r_j / r_j(0)}, \qquad
        L_w = \sum_t \lvert G_t - \bar G \rho_t^a \rvert

    The target :math:`\bar G \rho_t^a` is treated as a constant, so that the gradient of a weight has a closed form,
    :math:`\operatorname{sign}(G_t - \bar G \rho_t^a) \lVert \nabla_W r_t \rVert`, and no second derivatives are needed.
    The weights are updated by Adam and scaled to sum T. Pass W as ``criterion(losses, shared=...)``: the parameters of
    the last shared layer, or the activation after it.

    Example:
        >>> from torch import nn
        >>> from taskrobust import MultiTaskLoss
        >>> trunk, heads = nn.Linear(3, 4), nn.Linear(4, 2)
        >>> criterion = MultiTaskLoss(["noun", "verb"], GradNorm())
        >>> risks = heads(trunk(torch.ones(8, 3))).square().mean(0)
        >>> criterion({"noun": risks[0], "verb": risks[1]}, shared=trunk.weight).backward()

    Args:
        alpha: Exponent :math:`a`. Larger values favor slowly training tasks more strongly.
        lr: Learning rate of the weights.
        initial_risks: Initial risks :math:`r_t(0)`, one per task, e.g. log C for a cross-entropy with C classes. None
            uses the mean of the first ``initial_steps`` batches that include the task.
        initial_steps: See ``initial_risks``.

    Raises:
        ValueError: If ``initial_risks`` or ``initial_steps`` are not positive.

    References:
        Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks, ICML 2018,
        equations 1 and 2, Algorithm 1.
    """

    needs_gramian = True
    smallest_weight = 1e-3  # in the paper, weights can become negative, which would unlearn tasks

    task_weights: Tensor
    norms: Tensor
    initial_sums: Tensor
    initial_batches: Tensor

    def __init__(
        self,
        alpha: float = 1.5,
        lr: float = 0.025,
        initial_risks: Sequence[float] | None = None,
        initial_steps: int = 1,
    ) -> None:
        super().__init__()
        if initial_steps < 1:
            raise ValueError(f"Expected initial_steps >= 1, got {initial_steps}.")
        if initial_risks is not None and not all(0 < risk < math.inf for risk in initial_risks):
            raise ValueError(f"Expected positive initial risks, got {list(initial_risks)}.")
        self.alpha = alpha
        self.lr = lr
        self.initial_risks = initial_risks
        self.initial_steps = initial_steps
        self.adam = BufferAdam(lr)

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return equal weights."""
        known = self.initial_risks is not None
        return {
            "task_weights": torch.ones(self.num_tasks),
            "norms": torch.zeros(self.num_tasks),
            "initial_sums": self.initial_steps * torch.tensor(self.per_task("initial_risks", default=0.0).values),
            "initial_batches": torch.full((self.num_tasks,), float(self.initial_steps if known else 0)),
        }

    def observe(self, gramian: Tensor) -> None:
        """Store the norms of the gradients."""
        self.norms.copy_(gramian.diagonal().clamp(min=0).sqrt())

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Return the learned weights, which sum to T."""
        return self.task_weights

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Update the weights of the present tasks."""
        present = counts > 0
        learns = present & (self.initial_batches < self.initial_steps)
        self.initial_sums.add_(torch.where(learns, risks, 0))
        self.initial_batches.add_(learns.float())
        progress = risks * self.initial_batches.clamp(min=1) / self.initial_sums.clamp(min=1e-12)
        rates = progress / masked_mean(progress, counts)
        gradient_norms = self.task_weights * self.norms
        targets = masked_mean(gradient_norms, counts) * rates.clamp(min=0) ** self.alpha
        self.adam.step(self.task_weights, (gradient_norms - targets).sign() * self.norms, present)
        self.task_weights.clamp_(min=self.smallest_weight)
        self.task_weights.mul_(self.num_tasks / self.task_weights.sum())
