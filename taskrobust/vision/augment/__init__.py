"""Random changes of training images for fine-tuning: more ways to crop, other colours, mixed images."""

from taskrobust.vision.augment.colour_jitter import ColourJitter
from taskrobust.vision.augment.compose import Compose
from taskrobust.vision.augment.large_scale_jitter import LargeScaleJitter
from taskrobust.vision.augment.mixing import Mixing
from taskrobust.vision.augment.rand_augment import RandAugmentCrop

__all__ = ["ColourJitter", "Compose", "LargeScaleJitter", "Mixing", "RandAugmentCrop"]
