"""Strategies that say how much each task counts. One file a strategy."""

from taskrobust.weighting.base import Weighting
from taskrobust.weighting.dwa import DWA
from taskrobust.weighting.famo import FAMO
from taskrobust.weighting.fixed import Fixed
from taskrobust.weighting.geometric_mean import GeometricMean
from taskrobust.weighting.gradnorm import GradNorm
from taskrobust.weighting.gramian import DisjointRows
from taskrobust.weighting.group_dro import GroupDRO
from taskrobust.weighting.proportional import Proportional
from taskrobust.weighting.random_weights import RandomWeights
from taskrobust.weighting.schedules import Constant, Entropic, Linear, Schedule, Sharp, Theorem31
from taskrobust.weighting.softmax_minimax import SoftmaxMinimax
from taskrobust.weighting.stch import STCH
from taskrobust.weighting.uncertainty import Uncertainty
from taskrobust.weighting.uniform import Uniform

__all__ = [
    "DWA",
    "FAMO",
    "STCH",
    "Constant",
    "DisjointRows",
    "Entropic",
    "Fixed",
    "GeometricMean",
    "GradNorm",
    "GroupDRO",
    "Linear",
    "Proportional",
    "RandomWeights",
    "Schedule",
    "Sharp",
    "SoftmaxMinimax",
    "Theorem31",
    "Uncertainty",
    "Uniform",
    "Weighting",
    "make_weighting",
    "strategies",
]


def strategies() -> dict[str, type[Weighting]]:
    """The strategies of this package by class name."""
    exported = {name: globals()[name] for name in __all__}
    return {
        n: c for n, c in exported.items() if isinstance(c, type) and issubclass(c, Weighting) and c is not Weighting
    }


def make_weighting(name: str, num_tasks: int) -> Weighting:
    """Make a strategy with its defaults from its name, in any spelling: ``SoftmaxMinimax`` or ``softmax_minimax``.

    Args:
        name: Name of the strategy.
        num_tasks: Number of tasks.

    Raises:
        ValueError: If there is no strategy of that name, or it has arguments without defaults.
    """
    by_name = {known.lower(): strategy for known, strategy in strategies().items()}
    strategy = by_name.get(name.replace("_", "").lower())
    if strategy is None:
        raise ValueError(f"Expected the name of a weighting among {sorted(strategies())}, got {name!r}.")
    try:
        return strategy(num_tasks)
    except TypeError as error:
        raise ValueError(f"{strategy.__name__} has no defaults for all its arguments: pass an instance.") from error
