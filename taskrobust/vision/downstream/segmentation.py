from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.heads import ConvNextHead, Head
from taskrobust.vision.downstream.metrics import Iou
from taskrobust.vision.modalities import Modality, SemSeg
from taskrobust.vision.modalities.base import picture_of
from taskrobust.vision.modalities.semseg import VOID


@dataclass(frozen=True)
class Segmentation(DownstreamTask):
    """Tells the class of each pixel. Trained with the cross-entropy, scored by ``miou`` over all of the data.

    The maps of the modality ``semseg`` are read at full resolution. Void pixels cost nothing and do not count.

    Args:
        num_classes: Number of classes, up to 255.
        void: Label of unknown pixels in the files.
        reduce_zero_label: Whether label 0 of the files is void and label k is class k - 1.
        channels: Channels of the ConvNeXt blocks of the head.
    """

    num_classes: int
    void: int = VOID
    reduce_zero_label: bool = False
    channels: int = 384
    name: ClassVar[str] = "semseg"
    headline: ClassVar[str] = "miou"
    unknown: ClassVar[int] = VOID

    def __post_init__(self) -> None:
        self._labels()  # which checks its arguments

    def _labels(self) -> SemSeg:
        return SemSeg(self.num_classes, void=self.void, reduce_zero_label=self.reduce_zero_label, stride=1)

    def targets(self) -> dict[str, Modality]:
        """The map of labels."""
        return {"semseg": self._labels()}

    def head(self, width: int, depth: int, patch_size: int) -> Head:
        """ConvNeXt blocks on four by four places of a patch."""
        return ConvNextHead(width, depth, patch_size, self.num_classes, self.channels)

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Classes of the pixels, int64 [B, H, W]."""
        return batch["semseg"].long()

    def losses(self, predictions: Tensor, truth: Tensor, batch: Mapping[str, Tensor], training: bool) -> Tensor:
        """Cross-entropies, [B, H, W]."""
        return F.cross_entropy(predictions, truth, reduction="none", ignore_index=self.unknown)

    def scores(self, device: torch.device) -> Iou:
        """The miou and the pixel_accuracy."""
        return Iou(self.num_classes, self.unknown, device)

    def pictures(self, predictions: Tensor, truth: Tensor) -> dict[str, NDArray[np.uint8]]:
        """A color for each class; void is black."""
        return {"prediction": segmentation_pictures(predictions.argmax(1)), "target": segmentation_pictures(truth)}


def segmentation_pictures(labels: Tensor) -> NDArray[np.uint8]:
    """A color for each class, the same as in the pictures of pre-training; void is black.

    Args:
        labels: Classes, integers [N, H, W].

    Returns:
        RGB bytes [N, H, W, 3].
    """
    return picture_of(SemSeg(stride=1), labels[:, None].long(), labels[:, None])
