"""Random changes of training images for fine-tuning: more ways to crop, other colours, mixed images."""

from taskrobust.vision.transforms.color_jitter import ColourJitter
from taskrobust.vision.transforms.compose import Compose
from taskrobust.vision.transforms.large_scale_jitter import LargeScaleJitter
from taskrobust.vision.transforms.mixing import Mixing
from taskrobust.vision.transforms.rand_augment import RandAugmentCrop

__all__ = ["ColourJitter", "Compose", "LargeScaleJitter", "Mixing", "RandAugmentCrop"]
