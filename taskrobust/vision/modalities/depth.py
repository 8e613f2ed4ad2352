"""Distances from the camera."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from taskrobust.vision.modalities.base import Prepared, from_patches, to_bytes, to_patches
from taskrobust.vision.modalities.pixel_map import PixelMap

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor


@dataclass(frozen=True)
class Depth(PixelMap):
    r"""Depth, standardized in each image and predicted with the absolute error.

    .. math:: \hat d = \frac{d - \mu}{\sqrt{\sigma^2 + 10^{-6}}}

    with mean and variance of the central 80 % of the image's known pixels, so that the unit, the offset and a few far
    pixels do not matter. Level 0 means unknown: the pixel is embedded as the mean and has no loss.

    Args:
        unit: Meters that one level of a file stands for.
    """

    unit: float = 0.001

    def __post_init__(self) -> None:
        if not self.unit > 0:
            raise ValueError(f"Expected a unit above 0 meters, got {self.unit}.")

    def decode(self, image: Image) -> "TVTensor":
        """Meters, float32 [1, H, W], from a grayscale file of 8 or 16 bits."""
        from torchvision import tv_tensors

        if image.mode not in ("L", "I", "I;16", "I;16B"):
            raise ValueError(f"Expected depth in one channel of 8 or 16 bits, got an image of mode {image.mode!r}.")
        levels = np.asarray(image).astype(np.float32)
        return tv_tensors.Mask(torch.from_numpy(levels)[None].mul_(self.unit))

    def prepare(self, packed: Tensor, present: Tensor, patch_size: int) -> Prepared:
        """Standardized depth, 0 where unknown."""
        patches, grid = to_patches(packed, patch_size)
        valid = (patches > 0) & present[:, None, None]
        mean, deviation = _central_moments(patches.flatten(1), valid.flatten(1))
        values = (patches - mean[:, None, None]) / deviation[:, None, None]
        return Prepared(values.where(valid, 0), valid, grid)

    def picture(self, values: Tensor, prepared: Prepared) -> NDArray[np.uint8]:
        """From near (violet) to far (yellow) over the true range of each image; black where depth is unknown."""
        maps = from_patches(values.detach().float(), prepared.grid, channels=1).cpu()
        truth = from_patches(prepared.values, prepared.grid, channels=1).cpu()
        valid = from_patches(prepared.valid, prepared.grid, channels=1).cpu()
        nearest = truth.where(valid, torch.inf).amin((1, 2, 3), keepdim=True)
        farthest = truth.where(valid, -torch.inf).amax((1, 2, 3), keepdim=True)
        share = ((maps - nearest) / (farthest - nearest).clamp(min=1e-6)).clamp(0, 1).nan_to_num(0)
        colors = torch.from_numpy(mpl.colormaps["viridis"](share[:, 0].numpy())[..., :3]).permute(0, 3, 1, 2)
        return to_bytes(colors.where(valid | (maps != 0), 0))


def _central_moments(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and deviation with 1e-6 under the root, of the central 80 % of the valid values in each row; [B] each."""
    ordered = _sorted(values.where(valid, torch.inf))
    number = valid.sum(1, keepdim=True)
    tail = number // 10
    rank = torch.arange(values.shape[1], device=values.device)
    central = (rank >= tail) & (rank < number - tail)
    size = (number - 2 * tail)[:, 0].clamp(min=1)
    mean = ordered.where(central, 0).sum(1) / size
    variance = (ordered - mean[:, None]).where(central, 0).square().sum(1) / size
    return mean, (variance + 1e-6).sqrt()


def _sorted(rows: Tensor) -> Tensor:
    if rows.is_cpu:
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))  # some 20 times as fast as torch's on a CPU
    return rows.sort(dim=1).values
