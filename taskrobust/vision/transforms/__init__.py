"""Random augmentation for fine-tuning: crops, colors and mixed images."""

from taskrobust.vision.transforms.augment import ColorJitter, Compose, RandAugmentCrop
from taskrobust.vision.transforms.large_scale_jitter import LargeScaleJitter
from taskrobust.vision.transforms.mixing import Mixing

__all__ = ["ColorJitter", "Compose", "LargeScaleJitter", "Mixing", "RandAugmentCrop"]
