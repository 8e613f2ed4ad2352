"""Random changes of training images for fine-tuning: more ways to crop, other colors, mixed images."""

from taskrobust.vision.transforms.color_jitter import ColorJitter
from taskrobust.vision.transforms.compose import Compose
from taskrobust.vision.transforms.large_scale_jitter import LargeScaleJitter
from taskrobust.vision.transforms.mixing import Mixing
from taskrobust.vision.transforms.rand_augment import RandAugmentCrop

__all__ = ["ColorJitter", "Compose", "LargeScaleJitter", "Mixing", "RandAugmentCrop"]
