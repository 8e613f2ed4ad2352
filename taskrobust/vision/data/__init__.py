"""Images and their maps, read from folders or shards by (index, epoch) keys, and made into batches."""

from taskrobust.vision.data.base import ImageMaps, Images, Sample
from taskrobust.vision.data.cifar10 import Cifar10
from taskrobust.vision.data.collate import MaeCollate, TargetCollate
from taskrobust.vision.data.folders import ImageFolders, PairedFolders
from taskrobust.vision.data.imagenet import ImageNet, ImageNetS50
from taskrobust.vision.data.nyuv2 import write_nyuv2
from taskrobust.vision.data.rooms import Scenes
from taskrobust.vision.data.shards import ImageShards

__all__ = [
    "Cifar10",
    "ImageFolders",
    "ImageMaps",
    "ImageNet",
    "ImageNetS50",
    "ImageShards",
    "Images",
    "MaeCollate",
    "PairedFolders",
    "Sample",
    "Scenes",
    "TargetCollate",
    "write_nyuv2",
]
