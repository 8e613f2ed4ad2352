"""Surface normals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from taskrobust.vision.modalities.pixel_map import PixelMap

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

_LARGEST_JUMP = 0.2


@dataclass(frozen=True)
class Normals(PixelMap):
    r"""Unit vectors perpendicular to the surface, predicted with one minus the cosine.

    .. math:: \ell(\hat n, n) = 1 - \frac{\hat n \cdot n}{\|\hat n\|}

    The axes are those of the camera: x to the right, y up, z toward the viewer. Zero vectors are unknown. A file stores
    128 + 127 n in red, green and blue, so (128, 128, 128) is unknown; so is black.
    """

    channels: ClassVar[int] = 3

    def decode(self, image: Image) -> "TVTensor":
        """Unit vectors, and the number of the column, float32 [4, H, W]: ``pack`` sees by it whether to mirror them."""
        from torchvision import tv_tensors

        if image.mode != "RGB":
            raise ValueError(f"Expected normals in 3 channels of 8 bits, got an image of mode {image.mode!r}.")
        vectors = (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() - 128) / 127
        length = vectors.norm(dim=0, keepdim=True)
        vectors = (vectors / length.clamp(min=1e-6)).where((length > 0.5) & (length < 1.5), 0)
        columns = torch.arange(1.0, image.width + 1).expand(1, image.height, -1)
        return tv_tensors.Mask(torch.cat([vectors, columns]))

    def pack(self, crop: "TVTensor") -> Tensor:
        """Unit vectors, [3, S, S]. In a mirrored crop x changes its sign."""
        vectors, columns = crop.as_subclass(Tensor).split([3, 1])
        inside = (columns[..., 1:] > 0) & (columns[..., :-1] > 0)  # 0 where a crop was padded
        if columns.diff(dim=-1).where(inside, 0).sum() < 0:
            vectors = vectors * vectors.new_tensor([-1, 1, 1])[:, None, None]
        packed: Tensor = vectors.contiguous()
        return packed

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One minus the cosine, [B, L, 1, n]."""
        return 1 - F.cosine_similarity(prediction, target, dim=2, eps=1e-6)[:, :, None]

    def colors(self, maps: Tensor) -> Tensor:
        """The usual colors: (n + 1) / 2."""
        return (F.normalize(maps, dim=1) + 1) / 2


def normals_from_depth(meters: NDArray[np.float32], focal: float) -> NDArray[np.uint8]:
    """Compute normals by finite differences of the points that a depth map stands for, as ``Normals`` reads them.

    Normals are unknown where depth is unknown at the pixel or a neighbor, or jumps by more than 20 % across it.

    Args:
        meters: Planar depth [H, W] of a pinhole camera that looks at the center, 0 where unknown.
        focal: Focal length in widths of the image.

    Returns:
        RGB bytes, [H, W, 3].
    """
    height, width = meters.shape
    across = (np.arange(width) + 0.5 - width / 2) / (width * focal)
    up = (height / 2 - np.arange(height) - 0.5) / (width * focal)
    depth = meters.astype(np.float64)
    points = np.stack([across * depth, up[:, None] * depth, -depth], axis=-1)
    padded = np.pad(depth, 1, mode="edge")
    beside = np.stack([padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]])
    known = (depth > 0) & (beside.min(0) > 0) & (beside.max(0) - beside.min(0) < _LARGEST_JUMP * depth)
    normals = np.cross(np.gradient(points, axis=1), -np.gradient(points, axis=0))
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = np.where(known[..., None], normals / np.maximum(length, 1e-12), 0)
    encoded: NDArray[np.uint8] = np.rint(128 + 127 * normals).astype(np.uint8)
    return encoded
