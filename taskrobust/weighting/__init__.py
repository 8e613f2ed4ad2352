"""Weighting strategies for multi-task losses, one module per strategy.

The risk of a task is its mean loss.
"""

from taskrobust._names import did_you_mean, find_spelling, snake_case
from taskrobust.weighting.base import Weighting
from taskrobust.weighting.doremi import DoReMi
from taskrobust.weighting.dwa import DWA
from taskrobust.weighting.famo import FAMO
from taskrobust.weighting.fixed import Fixed
from taskrobust.weighting.geometric_mean import GeometricMean
from taskrobust.weighting.gradnorm import GradNorm
from taskrobust.weighting.gramian import Gramian
from taskrobust.weighting.group_dro import GroupDRO
from taskrobust.weighting.imtl_l import IMTLL
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
    "IMTLL",
    "STCH",
    "Constant",
    "DoReMi",
    "Entropic",
    "Fixed",
    "GeometricMean",
    "GradNorm",
    "Gramian",
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
    """Return the strategies of this package by class name."""
    exported = {name: globals()[name] for name in __all__}
    return {
        n: c for n, c in exported.items() if isinstance(c, type) and issubclass(c, Weighting) and c is not Weighting
    }


def make_weighting(name: str) -> Weighting:
    """Create a strategy with its default arguments from its name.

    Example:
        >>> make_weighting("softmax_minimax")
        SoftmaxMinimax(alpha=3.0, relative=True, hard=False)

    Args:
        name: Name of the strategy, e.g. ``softmax_minimax``, or of its class.

    Raises:
        ValueError: If there is no such strategy, or if it has required arguments.
    """
    known = strategies()
    spelling = find_spelling(name, known)
    if spelling is None:
        names = sorted(map(snake_case, known))
        raise ValueError(f"Expected a weighting among {names}, got {name!r}.{did_you_mean(snake_case(name), names)}")
    try:
        return known[spelling]()
    except TypeError as error:
        raise ValueError(f"{spelling} has no defaults for all its arguments: pass an instance.") from error
