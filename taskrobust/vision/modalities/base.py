"""The interface of modalities: how maps are read, embedded, predicted, scored and drawn."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor


class Prepared(NamedTuple):
    """The maps of a batch as the network reads and predicts them, patch after patch, row by row.

    Attributes:
        values: Normalized floats in the order of channel, row, column within a patch, or labels, int64; [B, L, K].
        valid: Where a value is known, bool [B, L, n]: n is the number of places in a patch, or 1 where a patch is
            known as a whole. Nowhere in a sample that lacks the modality.
        grid: Rows and columns of patches, L in all.
    """

    values: Tensor
    valid: Tensor
    grid: tuple[int, int]


class Modality(ABC):
    """One kind of map of an image: color, depth, labels.

    A subclass is a frozen dataclass: its fields are what a configuration may set, plain values only, and are kept with
    a saved model. It holds no parameters; it makes the modules that do.

    Attributes:
        source: Name of the modality whose maps this one predicts, where it only predicts; None where it is read, too.
        suffixes: File name extensions of its maps, with the dot.
    """

    source: ClassVar[str | None] = None
    suffixes: ClassVar[tuple[str, ...]]

    # From the disk into a batch, on the CPU.

    @abstractmethod
    def decode(self, image: Image) -> "TVTensor":
        """The map of an image file, as a ``tv_tensors.Image`` (resized smoothly) or ``Mask`` (nearest) [C, H, W].

        Raises:
            ValueError: If the file holds no such map.
        """

    @abstractmethod
    def pack(self, crop: "TVTensor") -> Tensor:
        """The compact form of a square crop in a batch, in bytes where possible."""

    @abstractmethod
    def missing(self, size: int) -> Tensor:
        """The form of a missing map in a batch, as ``pack`` would return it for a crop of ``size`` pixels."""

    # From a batch to the loss, on the device. Nothing here may wait for the device.

    @abstractmethod
    def prepare(self, packed: Tensor, present: Tensor, patch_size: int) -> Prepared:
        """Normalize and cut into patches.

        Args:
            packed: Stacked results of ``pack``, [B, ...].
            present: Which samples have this modality, bool [B].
            patch_size: Side of a patch in pixels.
        """

    @abstractmethod
    def embedding(self, width: int, patch_size: int) -> nn.Module:
        """A module that maps the values of any number of patches, [..., K], to their tokens, [..., width].

        Its linear layers are initialized by the model. Positions are added by the encoder.
        """

    @abstractmethod
    def outputs(self, patch_size: int) -> int:
        """Numbers that a decoder predicts for a patch."""

    @abstractmethod
    def patch_losses(self, prediction: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Float32 sums of the element losses in each patch, and the numbers of elements they are of, [B, L] each.

        The number is 0 where nothing is valid, and only there; the sum does not matter then, but is finite.

        Args:
            prediction: [B, L, outputs], in the order of channel, row, column within a patch.
            prepared: The targets.
        """

    # For people to look at.

    @abstractmethod
    def predicted_values(self, prediction: Tensor, prepared: Prepared) -> Tensor:
        """The predicted maps, [B, L, K] in the form of ``prepared.values``, from a ``prediction`` as above."""

    @abstractmethod
    def picture(self, values: Tensor, prepared: Prepared) -> NDArray[np.uint8]:
        """RGB bytes [B, H, W, 3] of maps in the form of ``prepared.values``; ``prepared`` sets the range of colors."""


def to_patches(maps: Tensor, patch_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cuts maps [B, C, H, W] into patches [B, L, C · patch_size²], and says how many rows and columns there are.

    Raises:
        ValueError: If the maps cannot be cut into whole patches.
    """
    batch, channels, height, width = maps.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"Expected maps that divide into patches of {patch_size}, got maps of {height} by {width}.")
    grid = (height // patch_size, width // patch_size)
    cut = maps.reshape(batch, channels, grid[0], patch_size, grid[1], patch_size)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2), grid


def from_patches(patches: Tensor, grid: tuple[int, int], channels: int) -> Tensor:
    """Puts patches [B, L, C · patch_size²] together to maps [B, C, H, W]."""
    side = round((patches.shape[-1] // channels) ** 0.5)
    cut = patches.reshape(-1, *grid, channels, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def to_bytes(colors: Tensor) -> NDArray[np.uint8]:
    """RGB bytes [B, H, W, 3] of colors [B, 3, H, W] between 0 and 1; what lies outside is clipped."""
    return (colors.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def picture_of(modality: Modality, maps: Tensor, truth: Tensor) -> NDArray[np.uint8]:
    """RGB bytes [B, H, W, 3] of maps [B, C, H, W] in the range of colors of the truth, which is known where above 0."""
    values, grid = to_patches(maps, patch_size=1)
    scale, _ = to_patches(truth, patch_size=1)
    return modality.picture(values, Prepared(scale, scale > 0, grid))
