"""Multi-task pre-training in which the worst task counts."""

from taskrobust import _torchvision as _torchvision
from taskrobust.evaluation import Evaluation, evaluate
from taskrobust.faults import NonFiniteLossError
from taskrobust.loss import MultiTaskLoss
from taskrobust.outputs import DisjointRows, Outputs, TaskLosses, grouped_losses, pool_batches
from taskrobust.ranks import pool_ranks
from taskrobust.risk import RiskEstimator
from taskrobust.step import StepReport
from taskrobust.weighting import (
    DWA,
    FAMO,
    STCH,
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
    "Evaluation",
    "Fixed",
    "GeometricMean",
    "GradNorm",
    "GroupDRO",
    "MultiTaskLoss",
    "NonFiniteLossError",
    "Outputs",
    "Proportional",
    "RandomWeights",
    "RiskEstimator",
    "SoftmaxMinimax",
    "StepReport",
    "TaskLosses",
    "Uncertainty",
    "Uniform",
    "Weighting",
    "evaluate",
    "grouped_losses",
    "pool_batches",
    "pool_ranks",
]
__version__ = "0.1.0"
