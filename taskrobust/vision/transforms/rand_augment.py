"""Random crops, then random operations out of a list."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from PIL.Image import Resampling

from taskrobust.training.data import Key
from taskrobust.vision.modalities.rgb import MEAN
from taskrobust.vision.transforms.crops import JointCrop
from taskrobust.vision.transforms.seeded import Stream, global_generators

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

_RAND_AUGMENT: Final = 0x8A4DA
"""What the random numbers are for."""


class RandAugmentCrop:
    """Random crops of color images, half of them mirrored, with two operations of RandAugment each.

    The operations are timm's ``rand-m9-mstd0.5-inc1``: each is left out half of the time; some move pixels, and what
    comes in from outside has ImageNet's mean color. The result is a function of the seed, the sample and the epoch
    alone: the global generators, which timm draws from, are as before.

    Args:
        size: Side of the square in pixels.
        magnitude: Strength of the operations, from 0 to 10.
        noise: Standard deviation of the strength.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width over height of the rectangle.
        flip: Probability of mirroring left and right.
        seed: Names the stream of random numbers.

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
            ValueError: If there are maps besides a color image.
        """
        from torchvision.tv_tensors import Image

        if len(maps) > 1 or not all(isinstance(map_, Image) for map_ in maps.values()):
            raise ValueError(
                f"Expected a color image alone for RandAugment, got {list(maps)}: it moves pixels, which no longer "
                "lie where their maps say. Take JointCrop or LargeScaleJitter, with ColorJitter for other colors."
            )
        with global_generators(self._stream.seed(key)):
            return {name: self._augment(crop) for name, crop in self.crop(maps, key).items()}

    def _augment(self, image: "TVTensor") -> "TVTensor":
        from torchvision.transforms.v2 import functional as F
        from torchvision.tv_tensors import wrap

        return wrap(F.pil_to_tensor(self._operations(F.to_pil_image(image))), like=image)
