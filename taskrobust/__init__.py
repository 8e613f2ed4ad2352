"""Pre-train on several upstream tasks so that the worst downstream task does well."""

from taskrobust import _torchvision as _torchvision
from taskrobust.loss import MultiTaskLoss, NonFiniteLossError
from taskrobust.risk import RiskEstimator, TaskLosses, pool_batches
from taskrobust.weighting import (
    DWA,
    FAMO,
    STCH,
    DisjointRows,
    Fixed,
    GeometricMean,
    GradNorm,
    GroupDRO,
    Proportional,
    RandomWeights,
    SoftmaxMinimax,
    Uncertainty,
    Uniform,
    Weighting,
)

__all__ = [
    "DWA",
    "FAMO",
    "STCH",
    "DisjointRows",
    "Fixed",
    "GeometricMean",
    "GradNorm",
    "GroupDRO",
    "MultiTaskLoss",
    "NonFiniteLossError",
    "Proportional",
    "RandomWeights",
    "RiskEstimator",
    "SoftmaxMinimax",
    "TaskLosses",
    "Uncertainty",
    "Uniform",
    "Weighting",
    "pool_batches",
]
__version__ = "0.1.0"
