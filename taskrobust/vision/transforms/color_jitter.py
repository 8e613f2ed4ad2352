"""Other colors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from taskrobust.training.data import Key
from taskrobust.vision.transforms.seeded import Stream

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

_COLOUR_JITTER: Final = 0xC0108
"""What the random numbers are for."""


class ColorJitter:
    """Changes brightness, contrast, saturation and hue of color images in random order; some become gray.

    Factors are drawn evenly from 1 - x to 1 + x, the shift of the hue from -x to x. Maps that are no ``Image`` stay as
    they are. Where it comes before a crop or a large-scale jitter (``Compose``), padding keeps its color. The result
    is a function of the seed, the sample and the epoch alone, and no other random generator is touched.

    Args:
        brightness: Largest change of the factor of brightness.
        contrast: Largest change of the factor of contrast.
        saturation: Largest change of the factor of saturation.
        hue: Largest shift of the hue, up to 0.5, in turns of the color circle.
        gray: Probability of a gray image.
        seed: Names the stream of random numbers.

    Raises:
        ValueError: If a factor could fall below 0, or the hue be shifted by more than half a turn.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        gray: float = 0.0,
        seed: int = 0,
    ) -> None:
        changes = (brightness, contrast, saturation)
        if not all(0 <= change <= 1 for change in changes):
            raise ValueError(f"Expected brightness, contrast and saturation from 0 to 1, got {changes}.")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"Expected a hue from 0 to 0.5, got {hue}.")
        self.changes = np.array([*changes, hue])
        self.gray = gray
        self._stream = Stream(seed, _COLOUR_JITTER)

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> "dict[str, TVTensor]":
        """Change colors.

        Args:
            maps: The maps of a sample by name, [C, H, W] each.
            key: Index of the sample, and epoch.
        """
        from torchvision.transforms.v2 import functional as F
        from torchvision.tv_tensors import Image

        draws = self._stream.uniform(key, 9)
        amounts = _MIDDLE + (2 * draws[:4] - 1) * self.changes
        order = [number for number in draws[4:8].argsort().tolist() if self.changes[number] > 0]
        jittered = dict(maps)
        for name, map_ in maps.items():
            if isinstance(map_, Image):
                for number in order:
                    map_ = getattr(F, _ADJUST[number])(map_, float(amounts[number]))
                jittered[name] = F.rgb_to_grayscale(map_, num_output_channels=3) if draws[8] < self.gray else map_
        return jittered


_MIDDLE: Final = np.array([1.0, 1.0, 1.0, 0.0])
_ADJUST: Final = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
