"""Multi-task pre-training in which the worst task counts."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from taskrobust import _torchvision as _torchvision

if TYPE_CHECKING:
    from taskrobust.evaluation import Evaluation, evaluate
    from taskrobust.faults import NonFiniteLossError
    from taskrobust.loss import MultiTaskLoss
    from taskrobust.outputs import DisjointRows, Outputs, TaskLosses, grouped_losses, pool_batches
    from taskrobust.ranks import pool_ranks
    from taskrobust.reference import FixedReference, ModelReference, PowerLawReference, Reference
    from taskrobust.risk import RiskEstimator
    from taskrobust.step import StepReport
    from taskrobust.weighting import (
        DWA,
        FAMO,
        IMTLL,
        STCH,
        DoReMi,
        Fixed,
        GeometricMean,
        GradNorm,
        Gramian,
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
    "IMTLL",
    "STCH",
    "DisjointRows",
    "DoReMi",
    "Evaluation",
    "Fixed",
    "FixedReference",
    "GeometricMean",
    "GradNorm",
    "Gramian",
    "GroupDRO",
    "ModelReference",
    "MultiTaskLoss",
    "NonFiniteLossError",
    "Outputs",
    "PowerLawReference",
    "Proportional",
    "RandomWeights",
    "Reference",
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

_HOMES = {
    "Evaluation": "taskrobust.evaluation",
    "evaluate": "taskrobust.evaluation",
    "MultiTaskLoss": "taskrobust.loss",
    "NonFiniteLossError": "taskrobust.faults",
    "DisjointRows": "taskrobust.outputs",
    "Outputs": "taskrobust.outputs",
    "TaskLosses": "taskrobust.outputs",
    "grouped_losses": "taskrobust.outputs",
    "pool_batches": "taskrobust.outputs",
    "pool_ranks": "taskrobust.ranks",
    "FixedReference": "taskrobust.reference",
    "ModelReference": "taskrobust.reference",
    "PowerLawReference": "taskrobust.reference",
    "Reference": "taskrobust.reference",
    "RiskEstimator": "taskrobust.risk",
    "StepReport": "taskrobust.step",
    "DWA": "taskrobust.weighting",
    "FAMO": "taskrobust.weighting",
    "IMTLL": "taskrobust.weighting",
    "DoReMi": "taskrobust.weighting",
    "STCH": "taskrobust.weighting",
    "Fixed": "taskrobust.weighting",
    "GeometricMean": "taskrobust.weighting",
    "GradNorm": "taskrobust.weighting",
    "Gramian": "taskrobust.weighting",
    "GroupDRO": "taskrobust.weighting",
    "Proportional": "taskrobust.weighting",
    "RandomWeights": "taskrobust.weighting",
    "SoftmaxMinimax": "taskrobust.weighting",
    "Uncertainty": "taskrobust.weighting",
    "Uniform": "taskrobust.weighting",
    "Weighting": "taskrobust.weighting",
}
"""Where each name is from. It is imported when it is first used, so that the commands start without torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
