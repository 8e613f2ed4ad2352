import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_mean


class GeometricMean(Weighting):
    r"""Minimises the geometric mean of the risks: every task counts by its relative progress.

    .. math:: L = \Big( \prod_t r_t \Big)^{1/T}, \qquad w_t = \frac{L}{T r_t}

    The opposite of minimax: the smaller a risk, the larger its weight. Risks must be positive.

    References:
        Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task
        Learning, CVPR Workshops 2019, equation 4.
    """

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Geometric mean over T times the risk."""
        risks = torch.where(counts > 0, risks, 1).clamp(min=1e-12)
        geometric_mean = masked_mean(risks.log(), counts).exp()
        return geometric_mean / ((counts > 0).sum() * risks)
