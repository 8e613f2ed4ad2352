"""Random changes of training images for fine-tuning: more ways to crop, other colors, mixed images."""

from taskrobust.vision.transforms.augment import ColorJitter, Compose, RandAugmentCrop
from taskrobust.vision.transforms.large_scale_jitter import LargeScaleJitter
from taskrobust.vision.transforms.mixing import Mixing

__all__ = ["ColorJitter", "Compose", "LargeScaleJitter", "Mixing", "RandAugmentCrop"]
