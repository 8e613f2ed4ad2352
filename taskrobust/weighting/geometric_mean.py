import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_mean


class GeometricMean(Weighting):
    r"""Minimizes the geometric mean of the risks, so that relative improvements of all tasks count equally.

    .. math:: L = \Big( \prod_t r_t \Big)^{1/T}, \qquad w_t = \frac{L}{T r_t}

    In contrast to minimax, smaller risks have larger weights. Risks must be positive.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], GeometricMean(), weight_sum="paper")
        >>> criterion({"noun": torch.tensor(8.0), "verb": torch.tensor(2.0)})
        tensor(4.)

    References:
        Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task
        Learning, CVPR Workshops 2019, equation 4.
    """

    smallest_risk = 0.0

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the geometric mean divided by T times the risk."""
        present = counts > 0
        risks = torch.where(present, risks, 1).clamp(min=1e-12)  # 0 before the first step
        geometric_mean = masked_mean(risks.log(), counts).exp()
        return geometric_mean / (present.sum().clamp(min=1) * risks)
