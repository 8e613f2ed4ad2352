from torch import Tensor

from taskrobust.weighting.base import Weighting


class Uniform(Weighting):
    r"""Weighs all tasks alike: the average risk of usual multi-task pre-training.

    .. math:: w_t = \frac{1}{T}

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, equation 4.
    """

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """One over the number of present tasks."""
        present = (counts > 0).float()
        return present / present.sum().clamp(min=1)
