from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.heads import DptHead, Head
from taskrobust.vision.downstream.metrics import DepthErrors
from taskrobust.vision.modalities import Depth, Modality
from taskrobust.vision.modalities.base import picture_of

_SHARE: Final = 0.2


@dataclass(frozen=True)
class DepthEstimation(DownstreamTask):
    r"""Tells the depth of each pixel in meters. Trained with the berHu loss, scored by ``delta1`` over known pixels.

    .. math:: \ell(e) = \begin{cases} |e| & |e| \le c \\ (e^2 + c^2) / 2c & |e| > c \end{cases}, \qquad
        c = \tfrac15 \max |e|

    with the largest error over the known pixels of the image, so that the loss of an image does not depend on the batch
    that it is in. Predictions are in meters, since the scores are of meters: depth standardized image by image, as in
    pre-training, would have to be scaled by the truth first.

    Args:
        unit: Meters that one level of a file stands for.
        largest: Largest depth that can be predicted, in meters.
        channels: Channels of the fused map in the DPT head.

    References:
        Laina et al., Deeper Depth Prediction with Fully Convolutional Residual Networks, 3DV 2016, section 3.2.
    """

    unit: float = 0.001
    largest: float = 10.0
    channels: int = 256
    name: ClassVar[str] = "depth"
    headline: ClassVar[str] = "delta1"
    unknown: ClassVar[int] = 0

    def __post_init__(self) -> None:
        Depth(self.unit)  # which checks its argument
        if not self.largest > 0:
            raise ValueError(f"Expected a largest depth above 0 meters, got {self.largest}.")

    def targets(self) -> dict[str, Modality]:
        """The map of depths."""
        return {"depth": Depth(self.unit)}

    def head(self, width: int, depth: int, patch_size: int) -> Head:
        """That of a dense prediction transformer."""
        return DptHead(width, depth, patch_size, self.largest, self.channels)

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Meters, float32 [B, H, W]."""
        return batch["depth"][:, 0]

    def losses(self, predictions: Tensor, truth: Tensor, batch: Mapping[str, Tensor], training: bool) -> Tensor:
        """The berHu loss, [B, H, W]."""
        return berhu(predictions - truth, truth != self.unknown)

    def scores(self, device: torch.device) -> DepthErrors:
        """delta1, delta2, delta3, rmse and abs_rel, over pixels and over images."""
        return DepthErrors(device)

    def pictures(self, predictions: Tensor, truth: Tensor) -> dict[str, NDArray[np.uint8]]:
        """From near (violet) to far (yellow) over the true range of each image; black where depth is unknown."""
        return {"prediction": depth_pictures(predictions, truth), "target": depth_pictures(truth, truth)}


def berhu(errors: Tensor, known: Tensor) -> Tensor:
    """The berHu loss of errors [B, H, W], its threshold a fifth of the largest one in an image where it is known."""
    size = errors.abs()
    threshold = _SHARE * size.detach().where(known, 0).amax((1, 2), keepdim=True)
    squared = (size.square() + threshold.square()) / (2 * threshold.clamp(min=1e-6))
    return torch.where(size <= threshold, size, squared)


def depth_pictures(meters: Tensor, truth: Tensor) -> NDArray[np.uint8]:
    """From near (violet) to far (yellow) over the true range of each image, so that columns can be compared.

    Args:
        meters: Depth [N, H, W], predicted or the truth itself, which is black where it is unknown.
        truth: True depth [N, H, W], 0 where unknown.

    Returns:
        RGB bytes [N, H, W, 3].
    """
    return picture_of(Depth(), meters[:, None], truth[:, None])
