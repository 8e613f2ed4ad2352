"""Strategies that compute how much each task counts, one file per strategy."""

import difflib
import re

from taskrobust.weighting.base import Weighting
from taskrobust.weighting.dwa import DWA
from taskrobust.weighting.famo import FAMO
from taskrobust.weighting.fixed import Fixed
from taskrobust.weighting.geometric_mean import GeometricMean
from taskrobust.weighting.gradnorm import GradNorm
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
    "strategy_name",
]


def strategies() -> dict[str, type[Weighting]]:
    """The strategies of this package by class name."""
    exported = {name: globals()[name] for name in __all__}
    return {
        n: c for n, c in exported.items() if isinstance(c, type) and issubclass(c, Weighting) and c is not Weighting
    }


def make_weighting(name: str) -> Weighting:
    """Make a strategy with its defaults from its name.

    Example:
        >>> make_weighting("softmax_minimax")
        SoftmaxMinimax(alpha=3.0, relative=True, hard=False)

    Args:
        name: Name of the strategy, such as ``softmax_minimax``. The name of its class is another spelling of it.

    Raises:
        ValueError: If there is no strategy of that name, or it has arguments without defaults.
    """
    by_name = {strategy_name(cls): cls for cls in strategies().values()}
    spellings = {key.replace("_", ""): key for key in by_name}
    known = spellings.get(name.replace("_", "").replace("-", "").lower())
    if known is None:
        close = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Expected a weighting among {sorted(by_name)}, got {name!r}.{hint}")
    strategy = by_name[known]
    try:
        return strategy()
    except TypeError as error:
        raise ValueError(f"{strategy.__name__} has no defaults for all its arguments: pass an instance.") from error


def strategy_name(strategy: type[Weighting]) -> str:
    """The name of a strategy: that of its class in snake case.

    Example:
        >>> strategy_name(SoftmaxMinimax), strategy_name(GroupDRO), strategy_name(GradNorm)
        ('softmax_minimax', 'group_dro', 'gradnorm')
    """
    return _OWN_NAMES.get(strategy.__name__) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", strategy.__name__).lower()


_OWN_NAMES = {"GradNorm": "gradnorm"}  # one word in its paper
