"""Crops of an image and all of its maps at once."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from taskrobust.training.data import Key
from taskrobust.vision.transforms.seeded import Stream

if TYPE_CHECKING:
    from torchvision.tv_tensors import Image, TVTensor


class Transform(Protocol):
    """Crops the maps of a sample, given its key (index, epoch)."""

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> dict[str, Any]:
        """Crop maps, by name and [C, H, W] each."""


_CROP: Final = 0xC409
"""The purpose of the random numbers: masks have another, as their seed may be the same number."""

_TRIES: Final = 10


class Box(NamedTuple):
    """A rectangle in pixels of a map of ``height`` and ``width``."""

    top: int
    left: int
    rows: int
    columns: int
    height: int
    width: int


class JointCrop:
    """Cuts a random rectangle out of an image and its maps, resizes it to a square and mirrors half of them.

    The rectangle is the same part of the scene in all maps, which may have different resolutions: it consists of whole
    pixels of the largest. An ``Image`` is resized by bicubic interpolation with antialiasing, a ``Mask`` by the nearest
    pixels. The crop depends on the seed, the sample and the epoch only; global random generators are not used.

    Args:
        size: Side of the square in pixels.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width over height of the rectangle.
        flip: Probability of mirroring left and right.
        seed: Seed of the crops.

    References:
        Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6.
    """

    def __init__(
        self,
        size: int,
        *,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        seed: int = 0,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"Expected a scale (smallest, largest) within (0, 1], got {tuple(scale)}.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"Expected a ratio (smallest, largest) above 0, got {tuple(ratio)}.")
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.flip = flip
        self._stream = Stream(seed, _CROP)

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> "dict[str, TVTensor]":
        """Crop.

        Args:
            maps: The maps of a sample by name, [C, H, W] each.
            key: Index of the sample, and epoch.
        """
        draws = self._stream.uniform(key, 4 * _TRIES + 1)
        box = self._draw_box(*largest_size(maps), draws[1:].reshape(4, _TRIES))
        return {name: _cut(map_, box, self.size, mirrored=draws[0] < self.flip) for name, map_ in maps.items()}

    def _draw_box(self, height: int, width: int, draws: NDArray[np.float64]) -> Box:
        """The first of ten random rectangles that fits into the image, or the largest one in its center."""
        areas = height * width * (self.scale[0] + draws[0] * (self.scale[1] - self.scale[0]))
        low, high = np.log(self.ratio)
        ratios = np.exp(low + draws[1] * (high - low))
        columns, rows = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
        fits = (columns > 0) & (columns <= width) & (rows > 0) & (rows <= height)
        first = int(fits.argmax())
        if not fits[first]:
            widest, highest = min(width, round(height * self.ratio[1])), min(height, round(width / self.ratio[0]))
            return _center_box(highest, widest, height, width)
        top = int(draws[2, first] * (height - rows[first] + 1))
        left = int(draws[3, first] * (width - columns[first] + 1))
        return Box(top, left, int(rows[first]), int(columns[first]), height, width)


class CenterCrop:
    """Resizes the shorter side of an image and its maps, and cuts out the center square: for held-out data.

    Args:
        size: Side of the square in pixels.
        shorter: Length of the shorter side after resizing, in pixels. Defaults to ``size``, the largest square.
    """

    def __init__(self, size: int, *, shorter: int | None = None) -> None:
        if shorter is not None and shorter < size:
            raise ValueError(f"Expected the shorter side to be resized to at least {size}, the crop, got {shorter}.")
        self.size = size
        self.share = size / (shorter or size)

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> "dict[str, TVTensor]":
        """Crop; the key is not used.

        Args:
            maps: The maps of a sample by name, [C, H, W] each.
            key: Index of the sample, and epoch.
        """
        height, width = largest_size(maps)
        side = max(1, round(self.share * min(height, width)))
        box = _center_box(side, side, height, width)
        return {name: _cut(map_, box, self.size, mirrored=False) for name, map_ in maps.items()}


def largest_size(maps: "Mapping[str, TVTensor]") -> tuple[int, int]:
    """Height and width of the map with the most pixels."""
    return max(((map_.shape[-2], map_.shape[-1]) for map_ in maps.values()), key=math.prod)


def _center_box(rows: int, columns: int, height: int, width: int) -> Box:
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns, height, width)


def _cut(map_: "TVTensor", box: Box, size: int, mirrored: bool) -> "TVTensor":
    from torchvision.transforms.v2 import functional as F
    from torchvision.tv_tensors import Image

    if isinstance(map_, Image):
        crop = _cut_smoothly(map_, box, size)
        return F.horizontal_flip(crop) if mirrored else crop
    return cut_nearest(map_, box, size, size, mirrored)


def cut_nearest(map_: "TVTensor", box: Box, height: int, width: int, mirrored: bool) -> "TVTensor":
    """Cut a rectangle out of a map and resize it by the nearest pixels.

    torchvision's nearest resize of a Mask rounds to the upper left pixel, which shifts it against the image, and is
    slower.

    Args:
        map_: The map, [C, H, W].
        box: The rectangle.
        height: Pixels of the result.
        width: Pixels of the result.
        mirrored: Whether to mirror it left and right.
    """
    from torchvision.tv_tensors import wrap

    rows = _nearest(box.top, box.rows, box.height, map_.shape[-2], height)
    columns = _nearest(box.left, box.columns, box.width, map_.shape[-1], width)
    return wrap(torch.from_numpy(map_.numpy().take(rows, 1).take(columns[::-1] if mirrored else columns, 2)), like=map_)


def _cut_smoothly(image: "Image", box: Box, size: int) -> "Image":
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    top, rows = _whole_pixels(box.top, box.rows, box.height, image.shape[-2])
    left, columns = _whole_pixels(box.left, box.columns, box.width, image.shape[-1])
    bicubic = InterpolationMode.BICUBIC
    return F.resized_crop(image, top, left, rows, columns, [size, size], interpolation=bicubic, antialias=True)


def _whole_pixels(first: int, extent: int, whole: int, pixels: int) -> tuple[int, int]:
    """First and number of the pixels of an image, of ``pixels`` in a row, that a crop consists of, at least one."""
    start = min(round(first * pixels / whole), pixels - 1)
    return start, max(1, round((first + extent) * pixels / whole) - start)


def _nearest(first: int, extent: int, whole: int, pixels: int, size: int) -> NDArray[np.int64]:
    """The pixels of a map, of ``pixels`` in a row, at the centers of a crop's ``size`` pixels.

    The crop starts at ``first`` and extends over ``extent`` pixels of a row of ``whole``. In integers, so that
    rounding does not move a center.
    """
    centers = 2 * size * first + (2 * np.arange(size) + 1) * extent
    return centers * pixels // (2 * size * whole)
