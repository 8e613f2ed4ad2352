"""The kinds of maps that a model can read and predict, one file each."""

from taskrobust.vision.modalities.base import Modality, Prepared
from taskrobust.vision.modalities.depth import Depth
from taskrobust.vision.modalities.norm_rgb import NormRgb
from taskrobust.vision.modalities.normals import Normals
from taskrobust.vision.modalities.pixel_map import PixelMap
from taskrobust.vision.modalities.rgb import Rgb
from taskrobust.vision.modalities.semseg import SemSeg

__all__ = ["Depth", "Modality", "NormRgb", "Normals", "PixelMap", "Prepared", "Rgb", "SemSeg"]
