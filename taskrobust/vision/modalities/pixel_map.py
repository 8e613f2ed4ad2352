"""Maps of numbers that are predicted pixel by pixel."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from taskrobust.vision.modalities.base import Modality, Prepared, from_patches, to_bytes, to_patches

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor


@dataclass(frozen=True)
class PixelMap(Modality):
    r"""Base of modalities with C numbers per pixel, predicted with a loss per pixel.

    A subclass defines ``decode`` and, where the defaults do not fit, ``errors`` and ``colors``. The loss of a patch is
    the mean over its known pixels. Pixels whose numbers are all 0 are unknown: they have no loss.

    Attributes:
        channels: Numbers per pixel, C.
    """

    channels: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".png",)

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Losses, float32 [B, L, C, n], or [B, L, 1, n] where the loss is one number per pixel. Defaults to L1.

        Args:
            prediction: Float32, [B, L, C, n] for patches of n pixels.
            target: The same of the true maps.
        """
        return F.l1_loss(prediction, target, reduction="none")

    def colors(self, maps: Tensor) -> Tensor:
        """Colors [B, 3, H, W] between 0 and 1 of maps [B, C, H, W], C = 1 or 3. Defaults to the values themselves."""
        return maps.expand(-1, 3, -1, -1)

    def pack(self, crop: "TVTensor") -> Tensor:
        """The values, [C, S, S]."""
        values: Tensor = crop.as_subclass(Tensor)
        return values.contiguous()

    def missing(self, size: int) -> Tensor:
        """Zeros."""
        return torch.zeros(self.channels, size, size)

    def prepare(self, packed: Tensor, present: Tensor, patch_size: int) -> Prepared:
        """The values, 0 where unknown."""
        values, grid = to_patches(packed.float(), patch_size)
        known = self.pixels(values).any(-2) & present[:, None, None]
        return Prepared(values.where(known.repeat(1, 1, self.channels), 0), known, grid)

    def embedding(self, width: int, patch_size: int) -> nn.Module:
        """A linear map of the C · patch_size² values."""
        return nn.Linear(self.outputs(patch_size), width)

    def outputs(self, patch_size: int) -> int:
        """C numbers per pixel."""
        return self.channels * patch_size**2

    def patch_losses(self, prediction: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Sums of ``errors`` over the known pixels, and their numbers."""
        errors = self.errors(self.pixels(prediction.float()), self.pixels(prepared.values))
        known = prepared.valid[:, :, None].expand_as(errors).flatten(2).float()
        return (errors.flatten(2) * known).sum(-1), known.sum(-1)

    def predicted_values(self, prediction: Tensor, prepared: Prepared) -> Tensor:
        """The prediction itself."""
        return prediction

    def picture(self, values: Tensor, prepared: Prepared) -> NDArray[np.uint8]:
        """The ``colors``; black where every number is 0."""
        maps = from_patches(values.detach().float(), prepared.grid, self.channels)
        return to_bytes(self.colors(maps).where(maps.any(1, keepdim=True), 0))

    def pixels(self, patches: Tensor) -> Tensor:
        """View patches [B, L, C · n] as [B, L, C, n]."""
        return patches.reshape(*patches.shape[:-1], self.channels, -1)
