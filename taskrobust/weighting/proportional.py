from torch import Tensor

from taskrobust.weighting.base import Weighting


class Proportional(Weighting):
    r"""Weights each task by its share of the elements, which results in the mean over all elements.

    .. math:: w_t = \frac{N_t}{\sum_j N_j}, \qquad \sum_t w_t \frac{S_t}{N_t} = \frac{\sum_t S_t}{\sum_t N_t}

    With one task per part of speech, this is the masked language modeling loss of BERT.

    Example:
        >>> import torch
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], Proportional())
        >>> criterion({"noun": (torch.tensor(2.0), 3), "verb": (torch.tensor(1.0), 1)})  # means and counts
        tensor(1.7500)
    """

    needs_counts = True

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the counts divided by their sum."""
        return counts / counts.sum().clamp(min=1)
