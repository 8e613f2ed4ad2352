from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from taskrobust.weighting.base import Weighting

Likelihood = Literal["regression", "classification"]


class Uncertainty(Weighting):
    r"""Weighs each task by the inverse of a learnt noise variance :math:`\sigma_t^2 = e^{s_t}`.

    .. math::
        L = \sum_t c_t e^{-s_t} r_t + \frac{s_t}{2}, \qquad
        c_t = \begin{cases} \frac12 & \text{regression} \\ 1 & \text{classification} \end{cases}

    The log-variances are a parameter: give ``criterion.parameters()`` to the optimiser, without weight decay. The
    paper's total can be negative, since a variance below one has a negative logarithm. ``MultiTaskLoss`` returns the
    weighted risks alone as the value of the total and keeps the gradient of the whole for :math:`s_t`.

    Args:
        num_tasks: Number of tasks T.
        likelihood: The form of each task's loss, T names or one for all: ``regression`` for a squared or absolute
            error, ``classification`` for a cross-entropy.
        initial_log_variance: :math:`s_t` before the first step.

    Raises:
        ValueError: If ``likelihood`` does not name one form for each task.

    References:
        Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics, CVPR
        2018, equations 5 to 10.
    """

    coefficients: Tensor

    def __init__(
        self,
        num_tasks: int,
        likelihood: Likelihood | Sequence[Likelihood] = "classification",
        initial_log_variance: float = 0.0,
    ) -> None:
        super().__init__(num_tasks)
        names = [likelihood] * num_tasks if isinstance(likelihood, str) else list(likelihood)
        if len(names) != num_tasks or not {"regression", "classification"}.issuperset(names):
            raise ValueError(f"Expected 'regression' or 'classification' for each of {num_tasks} tasks, got {names}.")
        self.register_buffer(
            "coefficients", torch.tensor([0.5 if name == "regression" else 1.0 for name in names]), persistent=False
        )
        self.log_variance = nn.Parameter(torch.full((num_tasks,), float(initial_log_variance)))

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        r"""The precisions :math:`c_t e^{-s_t}`."""
        return self.coefficients * (-self.log_variance.detach()).exp()

    def own_loss(self, risks: Tensor, share: Tensor) -> Tensor:
        """The paper's total as a function of the log-variances."""
        return (self.coefficients * (-self.log_variance).exp() * risks + share * self.log_variance / 2).sum()
