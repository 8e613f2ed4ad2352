from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from taskrobust._state import FixedTensor
from taskrobust.weighting.base import Weighting

Likelihood = Literal["regression", "classification"]


class Uncertainty(Weighting):
    r"""Weights each task by the inverse of a learned noise variance :math:`\sigma_t^2 = e^{s_t}`.

    .. math::
        L = \sum_t c_t e^{-s_t} r_t + \frac{s_t}{2}, \qquad
        c_t = \begin{cases} \frac12 & \text{regression} \\ 1 & \text{classification} \end{cases}

    The log-variances are parameters: pass ``criterion.parameters()`` to the optimizer, without weight decay. The
    paper's total can be negative, since variances below one have negative logarithms. ``MultiTaskLoss`` returns only
    the weighted risks as the value of the total, but its gradient with respect to :math:`s_t` is that of the full
    total.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["depth", "semseg"], Uncertainty(["regression", "classification"]))
        >>> criterion({"depth": torch.tensor(4.0), "semseg": torch.tensor(1.0)}).backward()
        >>> criterion.weighting.log_variance.grad  # 1/2 minus the weighted risk
        tensor([-1.5000, -0.5000])

    Args:
        likelihood: Likelihood of each task, one name per task or one for all: ``regression`` for squared or absolute
            errors, ``classification`` for cross-entropies.
        initial_log_variance: Initial :math:`s_t`.

    Raises:
        ValueError: If a ``likelihood`` is invalid.

    References:
        Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics, CVPR
        2018, equations 5 to 10.
    """

    log_variance: nn.Parameter

    def __init__(
        self, likelihood: Likelihood | Sequence[Likelihood] = "classification", initial_log_variance: float = 0.0
    ) -> None:
        super().__init__()
        names = {likelihood} if isinstance(likelihood, str) else set(likelihood)
        if not {"regression", "classification"}.issuperset(names):
            raise ValueError(f"Expected 'regression' or 'classification' as likelihood, got {likelihood!r}.")
        self.likelihood = likelihood
        self.initial_log_variance = float(initial_log_variance)

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return the initial log-variances."""
        return {"log_variance": nn.Parameter(torch.full((self.num_tasks,), self.initial_log_variance))}

    def setup(self, tasks: Sequence[str]) -> Self:
        """Check that there is one likelihood per task."""
        super().setup(tasks)
        names = self.likelihood
        if isinstance(names, str):
            names = [names] * len(tasks)
        elif len(names) != len(tasks):
            raise ValueError(f"Expected one likelihood per task of {list(tasks)}, got {list(names)}.")
        self._coefficients = FixedTensor([0.5 if name == "regression" else 1.0 for name in names])
        return self

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        r"""Compute the precisions :math:`c_t e^{-s_t}`."""
        return self._coefficients.on(risks.device) * (-self.log_variance.detach()).exp()

    def own_loss(self, risks: Tensor, share: Tensor) -> Tensor:
        """Compute the paper's total as a function of the log-variances."""
        precisions = self._coefficients.on(risks.device) * (-self.log_variance).exp()
        return (precisions * risks + share * self.log_variance / 2).sum()
