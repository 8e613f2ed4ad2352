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
from taskrobust.vision.downstream.metrics import AngularErrors
from taskrobust.vision.modalities import Modality, Normals
from taskrobust.vision.modalities.base import to_bytes


@dataclass(frozen=True)
class SurfaceNormals(DownstreamTask):
    r"""Predicts the surface normal of each pixel, scored by the share of pixels within 11.25° over all known ones.

    .. math:: \ell(\hat n, n) = 1 - \frac{\hat n \cdot n}{\|\hat n\|}

    Reads the maps of the modality ``normals``. Pixels with unknown normals have no loss and are not scored.

    Args:
        channels: Channels of the ConvNeXt blocks of the head.

    References:
        Fouhey et al., Data-Driven 3D Primitives for Single Image Understanding, ICCV 2013 (the scores).
    """

    channels: int = 384
    name: ClassVar[str] = "normals"
    headline: ClassVar[str] = "within_11.25"
    unknown: ClassVar[int] = -2  # not a component of a unit vector

    def targets(self) -> dict[str, Modality]:
        """The map of normals."""
        return {"normals": Normals()}

    def head(self, width: int, depth: int, patch_size: int) -> Head:
        """ConvNeXt blocks with one output per component."""
        return ConvNextHead(width, depth, patch_size, 3, self.channels)

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Unit vectors, float32 [B, 3, H, W]."""
        normals = batch["normals"]
        return normals.where(normals.any(1, keepdim=True), self.unknown)

    def losses(self, predictions: Tensor, truth: Tensor, batch: Mapping[str, Tensor], training: bool) -> Tensor:
        """One minus the cosine, repeated for each component, [B, 3, H, W]."""
        return (1 - F.cosine_similarity(predictions, truth, dim=1, eps=1e-6))[:, None].expand_as(truth)

    def scores(self, device: torch.device) -> AngularErrors:
        """The mean_angle and the shares within 11.25, 22.5 and 30 degrees."""
        return AngularErrors(self.unknown, device)

    def pictures(self, predictions: Tensor, truth: Tensor) -> dict[str, NDArray[np.uint8]]:
        """The usual colors of normals; black where the truth is unknown."""
        colors = Normals().colors
        target = colors(truth).where(truth != self.unknown, 0)
        return {"prediction": to_bytes(colors(predictions)), "target": to_bytes(target)}
