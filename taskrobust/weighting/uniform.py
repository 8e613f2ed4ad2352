from torch import Tensor

from taskrobust.weighting.base import Weighting


class Uniform(Weighting):
    r"""Weights all tasks equally, as in plain multi-task pre-training.

    .. math:: w_t = \frac{1}{T}

    Example:
        >>> import torch
        >>> from taskrobust import MultiTaskLoss
        >>> MultiTaskLoss(["noun", "verb"], Uniform())({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        tensor(1.5000)

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, equation 4.
    """

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute one over the number of present tasks."""
        present = (counts > 0).float()
        return present / present.sum().clamp(min=1)
