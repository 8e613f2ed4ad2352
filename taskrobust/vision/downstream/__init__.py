"""What a pre-trained encoder is fine-tuned for, one file each."""

from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.classification import Classification, LinearProbe
from taskrobust.vision.downstream.depth_estimation import DepthEstimation
from taskrobust.vision.downstream.segmentation import Segmentation

__all__ = ["Classification", "DepthEstimation", "DownstreamTask", "LinearProbe", "Segmentation"]
