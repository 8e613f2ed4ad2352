"""Images of very different sizes on a canvas of one size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch

from taskrobust.training.data import Key
from taskrobust.vision.modalities.rgb import MEAN
from taskrobust.vision.modalities.semseg import VOID
from taskrobust.vision.transforms.crops import Box, cut_nearest, largest_size
from taskrobust.vision.transforms.seeded import Stream

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

_LARGE_SCALE_JITTER: Final = 0x15A11
"""The purpose of the random numbers."""


class LargeScaleJitter:
    r"""Resizes an image and its maps by a random factor, then cuts a square out of them or pads them to it.

    An image of :math:`h` by :math:`w` pixels is resized by the factor :math:`s \min(S / h, S / w)` with
    :math:`s \sim U(s_{min}, s_{max})`. A side that is longer than the square is cropped at random; a shorter one
    is placed at the top or left, and the rest is unknown: ImageNet's mean color in an ``Image``, void in a ``Mask``
    of labels (integers), 0 in a ``Mask`` of measurements (floats), as modalities decode unknown pixels.

    All maps show the same part of the scene, whatever their resolutions. An ``Image`` is resized by bicubic
    interpolation with antialiasing, a ``Mask`` by the nearest pixels. The result depends on the seed, the sample and
    the epoch only; global random generators are not used.

    Args:
        size: Side S of the square in pixels.
        scale: Smallest and largest factor s. At 1 the whole image just fits.
        flip: Probability of mirroring left and right.
        seed: Seed of the random numbers.

    Raises:
        ValueError: If the scale is not a range above 0.

    References:
        Ghiasi et al., Simple Copy-Paste Is a Strong Data Augmentation Method for Instance Segmentation, CVPR 2021,
        section 3.
    """

    def __init__(self, size: int, *, scale: tuple[float, float] = (0.1, 2.0), flip: float = 0.5, seed: int = 0) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"Expected a scale (smallest, largest) above 0, got {tuple(scale)}.")
        self.size = size
        self.scale = scale
        self.flip = flip
        self._stream = Stream(seed, _LARGE_SCALE_JITTER)

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> "dict[str, TVTensor]":
        """Resize, crop and pad.

        Args:
            maps: The maps of a sample by name, [C, H, W] each.
            key: Index of the sample, and epoch.
        """
        visible, mirrored = self._draw(*largest_size(maps), key)
        return {name: self._on_canvas(_cut(map_, visible, mirrored)) for name, map_ in maps.items()}

    def _draw(self, height: int, width: int, key: Key) -> tuple[Box, bool]:
        """The part of the resized image that is on the canvas, and whether it is mirrored."""
        scale, top, left, flip = self._stream.uniform(key, 4)
        factor = (self.scale[0] + scale * (self.scale[1] - self.scale[0])) * self.size / max(height, width)
        height, width = max(1, round(factor * height)), max(1, round(factor * width))
        rows, columns = min(height, self.size), min(width, self.size)
        top, left = int(top * (height - rows + 1)), int(left * (width - columns + 1))
        return Box(top, left, rows, columns, height, width), bool(flip < self.flip)

    def _on_canvas(self, visible: "TVTensor") -> "TVTensor":
        from torchvision.tv_tensors import wrap

        channels, rows, columns = visible.shape
        if (rows, columns) == (self.size, self.size):
            return visible
        canvas = _unknown(visible).expand(channels, self.size, self.size).clone()
        canvas[:, :rows, :columns] = visible
        return wrap(canvas, like=visible)


def _cut(map_: "TVTensor", box: Box, mirrored: bool) -> "TVTensor":
    """Resize a map to the height and width of the box, and cut the box out."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F
    from torchvision.tv_tensors import Image

    if not isinstance(map_, Image):
        return cut_nearest(map_, box, box.rows, box.columns, mirrored)
    resized = F.resize(map_, [box.height, box.width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    crop = F.crop(resized, box.top, box.left, box.rows, box.columns)
    return F.horizontal_flip(crop) if mirrored else crop


def _unknown(map_: "TVTensor") -> torch.Tensor:
    """The value of unknown pixels of a map, [C or 1, 1, 1]."""
    from torchvision.tv_tensors import Image

    if isinstance(map_, Image):
        return torch.tensor([round(255 * mean) for mean in MEAN], dtype=map_.dtype)[:, None, None]
    return torch.full((1, 1, 1), 0 if map_.is_floating_point() else VOID, dtype=map_.dtype)
