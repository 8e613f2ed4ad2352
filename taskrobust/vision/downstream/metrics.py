"""Scores of downstream tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from taskrobust.outputs import Outputs
from taskrobust.ranks import Ranks


class SumScores(ABC):
    """Scores that are functions of sums over samples, pixels or images.

    Sums stay on the device, as integers or float64, and are added over the ranks at the end, so that scores do not
    depend on how the data were cut into batches, and a rank may have none. (``torchmetrics`` divides in float32.)

    Args:
        sums: Where the sums begin: zeros on the device.
    """

    def __init__(self, sums: Tensor) -> None:
        self.sums = sums

    def update(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> None:
        """Add the predictions for a batch."""
        self.add(*outputs.predictions)

    def compute(self) -> dict[str, float]:
        """The scores by name, over the batches of all ranks. Called by all ranks."""
        total = Ranks().sum(self.sums.clone())
        return {name: value.item() for name, value in self.scores(total.cpu().double()).items()}

    @abstractmethod
    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Add predictions and truth."""

    @abstractmethod
    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """The scores by name, shape [] each, that follow from the sums of all data; float64."""


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their ratio, 0 where the denominator is."""
    return torch.where(denominator > 0, numerator / denominator, 0)


class TopK(SumScores):
    """Share of the images whose class is the likeliest (``top1``), or among the five likeliest (``top5``).

    Args:
        num_classes: Number of classes. With five or fewer there is no ``top5``.
        unknown: Label of images that do not count.
        device: Where the predictions are.
    """

    def __init__(self, num_classes: int, unknown: int, device: torch.device) -> None:
        self.ranks = (1, 5) if num_classes > 5 else (1,)
        self.unknown = unknown
        super().__init__(torch.zeros(1 + len(self.ranks), dtype=torch.int64, device=device))

    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Add scores of classes [B, C] and labels [B]."""
        hits = predictions.topk(self.ranks[-1]).indices == truth[:, None]
        known = truth != self.unknown
        self.sums += torch.stack([known.sum(), *((hits[:, :k].any(1) & known).sum() for k in self.ranks)])

    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """top1 and top5."""
        return {f"top{k}": ratio(sums[place], sums[0]) for place, k in enumerate(self.ranks, start=1)}


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
        """Add scores of classes [B, C, H, W] and labels [B, H, W]."""
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


_NAMES: Final = ("delta1", "delta2", "delta3", "rmse", "abs_rel")
_LEAST: Final = 1e-3
"""Meters. Nearer predictions are set to this."""


class DepthErrors(SumScores):
    r"""How near predicted depths are to the true ones.

    .. math:: \delta_k = P\left[\max\left(\frac{\hat d}{d}, \frac{d}{\hat d}\right) < 1.25^k\right], \qquad
        \mathrm{rmse} = \sqrt{E(\hat d - d)^2}, \qquad \mathrm{abs\_rel} = E\,\frac{|\hat d - d|}{d}

    over all known pixels of the data, in meters, and, with the ending ``_per_image``, over the known pixels of each
    image, then averaged over the images that have any. Papers report the one or the other; where images have as many
    known pixels, only the rmse differs.

    Args:
        device: Where the predictions are.

    References:
        Eigen et al., Depth Map Prediction from a Single Image using a Multi-Scale Deep Network, NeurIPS 2014.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(torch.zeros(2, 1 + len(_NAMES), dtype=torch.float64, device=device))

    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Add predicted and true meters, [B, H, W] each, 0 where unknown."""
        known = (truth > 0).flatten(1)
        target = truth.double().flatten(1).where(known, 1)
        guess = predictions.double().flatten(1).clamp(min=_LEAST).where(known, 1)
        factor = torch.maximum(guess / target, target / guess)
        errors = (guess - target).abs()
        near = [(factor < 1.25**power).double() for power in (1, 2, 3)]
        per_pixel = torch.stack([*near, errors.square(), errors / target])  # [5, B, pixels]
        numbers = known.sum(1).double()
        in_images = per_pixel.where(known, 0).sum(-1)
        means = ratio(in_images, numbers)
        means[3].sqrt_()
        self.sums[0] += torch.cat([numbers[None], in_images]).sum(1)
        self.sums[1] += torch.cat([(numbers > 0).double()[None], means]).sum(1)

    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """The five, and the five per image."""
        per_pixel, per_image = ratio(sums[:, 1:], sums[:, :1])
        per_pixel[3].sqrt_()
        scores = dict(zip(_NAMES, per_pixel, strict=True))
        return scores | {f"{name}_per_image": score for name, score in zip(_NAMES, per_image, strict=True)}


_DEGREES: Final = (11.25, 22.5, 30.0)


class AngularErrors(SumScores):
    """Angles between predicted and true normals over all known pixels: their mean, and shares of small ones.

    Args:
        unknown: First component of the truth where it is unknown.
        device: Device of the predictions.
    """

    def __init__(self, unknown: float, device: torch.device) -> None:
        self.unknown = unknown
        super().__init__(torch.zeros(2 + len(_DEGREES), dtype=torch.float64, device=device))

    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Add predicted vectors of any length and true unit vectors, [B, 3, H, W] each."""
        known = truth[:, 0] != self.unknown
        cosine = F.cosine_similarity(predictions.double(), truth.double(), dim=1)
        angle = cosine.clamp(-1, 1).acos().rad2deg()
        per_pixel = torch.stack([torch.ones_like(angle), angle, *((angle < limit).double() for limit in _DEGREES)])
        self.sums += per_pixel.where(known, 0).flatten(1).sum(1)

    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """Degrees and shares."""
        names = ("mean_angle", *(f"within_{limit:g}" for limit in _DEGREES))
        return dict(zip(names, ratio(sums[1:], sums[0]), strict=True))
