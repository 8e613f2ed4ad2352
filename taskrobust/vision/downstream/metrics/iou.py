import torch
from torch import Tensor

from taskrobust.vision.downstream.metrics.sums import SumScores, ratio


class Iou(SumScores):
    r"""Intersection over union of the classes, and the share of pixels that are right.

    .. math:: \mathrm{miou} = \frac{1}{|K|} \sum_{k \in K} \frac{n_{kk}}{\sum_j n_{kj} + \sum_j n_{jk} - n_{kk}}

    :math:`n_{jk}` is the number of pixels of class j that were taken for k, over all of the data, and K are the classes
    that are there or were predicted. Pixels whose class is unknown do not count, whatever was predicted.

    Args:
        num_classes: Number of classes C.
        unknown: Label of pixels that do not count.
        device: Where the predictions are.

    References:
        Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 5.
    """

    def __init__(self, num_classes: int, unknown: int, device: torch.device) -> None:
        self.num_classes = num_classes
        self.unknown = unknown
        super().__init__(torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=device))

    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Take in scores of classes [B, C, H, W] and labels [B, H, W]."""
        pairs = truth * self.num_classes + predictions.argmax(1)
        pairs = pairs.masked_fill(truth == self.unknown, self.num_classes**2).flatten()
        self.sums.scatter_add_(0, pairs, torch.ones_like(pairs))

    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """The miou and the pixel_accuracy."""
        confusion = sums[:-1].view(self.num_classes, self.num_classes)
        right = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - right
        return {
            "miou": ratio(ratio(right, union).sum(), (union > 0).sum()),
            "pixel_accuracy": ratio(right.sum(), confusion.sum()),
        }
