"""Tasks to fine-tune a pre-trained encoder for, one per file."""

from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.classification import Classification, LinearProbe
from taskrobust.vision.downstream.depth_estimation import DepthEstimation
from taskrobust.vision.downstream.segmentation import Segmentation
from taskrobust.vision.downstream.surface_normals import SurfaceNormals

__all__ = ["Classification", "DepthEstimation", "DownstreamTask", "LinearProbe", "Segmentation", "SurfaceNormals"]
