"""Changes of colors, RandAugment, and several transforms in a row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL.Image import Resampling

from taskrobust.training.data import Key
from taskrobust.vision.modalities.rgb import MEAN
from taskrobust.vision.transforms.crops import JointCrop, Transform
from taskrobust.vision.transforms.seeded import Stream, global_generators

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

_COLOR_JITTER: Final = 0xC0108
_RAND_AUGMENT: Final = 0x8A4DA
"""The purposes of the random numbers."""

_MIDDLE: Final = np.array([1.0, 1.0, 1.0, 0.0])
_ADJUST: Final = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")


class Compose:
    """Applies transforms in order.

    Args:
        transforms: The transforms.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> "dict[str, TVTensor]":
        """Transform.

        Args:
            maps: The maps of a sample by name, [C, H, W] each.
            key: Index of the sample, and epoch.
        """
        transformed = dict(maps)
        for transform in self.transforms:
            transformed = transform(transformed, key)
        return transformed


class ColorJitter:
    """Changes brightness, contrast, saturation and hue of color images in random order; some become gray.

    Factors are drawn uniformly from 1 - x to 1 + x, the shift of the hue from -x to x. Maps other than an ``Image`` do
    not change. Before a crop or a large-scale jitter (``Compose``), the color of padding does not change. The result
    depends on the seed, the sample and the epoch only; global random generators are not used.

    Args:
        brightness: Largest change of the factor of brightness.
        contrast: Largest change of the factor of contrast.
        saturation: Largest change of the factor of saturation.
        hue: Largest shift of the hue, up to 0.5, in turns of the color circle.
        gray: Probability of a gray image.
        seed: Seed of the random numbers.

    Raises:
        ValueError: If a factor could be negative, or the shift of the hue could exceed half a turn.
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
        self._stream = Stream(seed, _COLOR_JITTER)

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


class RandAugmentCrop:
    """Random crops of color images, half of them mirrored, with two operations of RandAugment each.

    The operations are timm's ``rand-m9-mstd0.5-inc1``: each is skipped half of the time; some move pixels and fill with
    ImageNet's mean color. The result depends on the seed, the sample and the epoch only: the state of the global
    generators, from which timm draws, is restored.

    Args:
        size: Side of the square in pixels.
        magnitude: Strength of the operations, from 0 to 10.
        noise: Standard deviation of the strength.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width over height of the rectangle.
        flip: Probability of mirroring left and right.
        seed: Seed of the random numbers.

    References:
        Cubuk et al., RandAugment: Practical Automated Data Augmentation with a Reduced Search Space, NeurIPS 2020.
    """

    def __init__(
        self,
        size: int,
        *,
        magnitude: int = 9,
        noise: float = 0.5,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        seed: int = 0,
    ) -> None:
        from timm.data.auto_augment import rand_augment_transform

        if not 0 <= magnitude <= 10:
            raise ValueError(f"Expected a magnitude from 0 to 10, got {magnitude}.")
        if noise < 0:
            raise ValueError(f"Expected a standard deviation of at least 0 for the noise, got {noise}.")
        self.crop = JointCrop(size, scale=scale, ratio=ratio, flip=flip, seed=seed)
        self._operations = rand_augment_transform(
            f"rand-m{magnitude}-mstd{noise}-inc1",
            {"img_mean": tuple(round(255 * mean) for mean in MEAN), "interpolation": Resampling.BICUBIC},
        )
        self._stream = Stream(seed, _RAND_AUGMENT)

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> "dict[str, TVTensor]":
        """Crop and augment.

        Args:
            maps: The color image by name, [3, H, W].
            key: Index of the sample, and epoch.

        Raises:
            ValueError: If there are maps other than one color image.
        """
        from torchvision.tv_tensors import Image

        if len(maps) > 1 or not all(isinstance(map_, Image) for map_ in maps.values()):
            raise ValueError(
                f"Expected a color image alone for RandAugment, got {list(maps)}: it moves pixels, which then "
                "no longer match the maps. Use JointCrop or LargeScaleJitter, with ColorJitter for the colors."
            )
        with global_generators(self._stream.seed(key)):
            return {name: self._augment(crop) for name, crop in self.crop(maps, key).items()}

    def _augment(self, image: "TVTensor") -> "TVTensor":
        from torchvision.transforms.v2 import functional as F
        from torchvision.tv_tensors import wrap

        return wrap(F.pil_to_tensor(self._operations(F.to_pil_image(image))), like=image)
