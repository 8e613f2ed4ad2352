"""Color images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from taskrobust.vision.modalities.base import Prepared, from_patches, to_bytes, to_patches
from taskrobust.vision.modalities.pixel_map import PixelMap

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

MEAN: Final = (0.485, 0.456, 0.406)
"""Mean of ImageNet's red, green and blue, between 0 and 1."""

STD: Final = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""


@dataclass(frozen=True)
class Rgb(PixelMap):
    """Colors, standardized by ImageNet's mean and deviation and predicted with the squared error."""

    channels: ClassVar[int] = 3
    suffixes: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg", ".png")

    def decode(self, image: Image) -> "TVTensor":
        """Bytes [3, H, W]; grayscale, palettes and CMYK become RGB, transparency is dropped."""
        from torchvision import tv_tensors

        return tv_tensors.Image(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))

    def missing(self, size: int) -> Tensor:
        """Black."""
        return torch.zeros(3, size, size, dtype=torch.uint8)

    def prepare(self, packed: Tensor, present: Tensor, patch_size: int) -> Prepared:
        """Standardized colors; all are known where the image is."""
        patches, grid = to_patches(packed, patch_size)
        values = patches.float()
        channels = values.view(*values.shape[:2], 3, -1)
        for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
            channels[:, :, channel].div_(255 * std).sub_(mean / std)
        return Prepared(values, present[:, None, None].expand(-1, values.shape[1], 1), grid)

    def patch_losses(self, prediction: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Squared errors."""
        return _squared_errors(prediction, prepared.values), prepared.valid[:, :, 0] * float(prediction.shape[-1])

    def picture(self, values: Tensor, prepared: Prepared) -> NDArray[np.uint8]:
        """The colors."""
        maps = from_patches(values.float(), prepared.grid, channels=3)
        std, mean = (maps.new_tensor(numbers)[:, None, None] for numbers in (STD, MEAN))
        return to_bytes(maps * std + mean)


def _squared_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Sums over the values of each patch, [B, L], in float32."""
    return F.mse_loss(prediction.float(), target, reduction="none").sum(-1)
