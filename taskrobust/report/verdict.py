"""Sentences on the outcome of a comparison."""

import math
from collections.abc import Mapping

from taskrobust.report.comparison import Comparison, Estimate, Standing


def headline(comparison: Comparison) -> str:
    """Which label is best in the worst case, and its cost in the mean; empty if nothing can be compared."""
    if len(comparison.standings) < 2:
        return ""
    alike = _best_in_the_worst_case(comparison)
    best = alike[0]
    standing = comparison.standings[best]
    worst = f"{comparison.quantity.extreme} {comparison.quantity.noun} {_text(comparison, standing.worst)}"
    if len(alike) > 1:
        return f"Tied in the worst case: {', '.join(alike)} ({worst})."
    sentence = f"Best in the worst case: {best} ({worst}, {comparison.titles[standing.worst_task]})"
    if best == comparison.baseline:
        return f"{sentence}, the baseline."
    return f"{sentence}, {_gain(comparison, standing)}; {_cost(comparison, standing)}."


def details(comparison: Comparison) -> list[str]:
    """Further findings: labels within the spread of the best, the smallest gain of a task, the best mean."""
    standings = comparison.standings
    if len(standings) < 2:
        return []
    best = _best_in_the_worst_case(comparison)[0]
    rivals = _within_the_spread(best, {label: standing.worst for label, standing in standings.items()})
    means = {label: standing.mean for label, standing in standings.items()}
    best_means = _best(comparison, means)
    mean_rivals = _within_the_spread(best_means[0], {k: v for k, v in means.items() if k not in best_means[1:]})
    single = all(standing.worst.runs == 1 for standing in standings.values())
    return [
        *(["One run per label: the spread is unknown."] if single else []),
        *([f"Within the spread of the best worst case: {rivals}."] if rivals else []),
        _smallest_gain(comparison),
        f"Best in the mean: {', '.join(best_means)} ({_text(comparison, means[best_means[0]])})"
        + (f"; within its spread: {mean_rivals}." if mean_rivals else "."),
    ]


def _within_the_spread(best: str, estimates: Mapping[str, Estimate]) -> str:
    others = (label for label in estimates if label != best)
    return ", ".join(label for label in others if estimates[label].overlaps(estimates[best]))


def _smallest_gain(comparison: Comparison) -> str:
    """The worst case that does not compare values of different tasks."""
    others = [(s.least_gain, label, s) for label, s in comparison.standings.items() if label != comparison.baseline]
    parts = []
    for gain, label, standing in sorted(others, key=lambda other: -other[0]):
        close = ", within the spread" if comparison.is_close(label, standing.least_gain_task) else ""
        task = comparison.titles[standing.least_gain_task]
        parts.append(f"{label} {gain:+z.{comparison.quantity.decimals}f} ({task}{close})")
    return f"Smallest gain of a task over {comparison.baseline}: {', '.join(parts)}."


def _best_in_the_worst_case(comparison: Comparison) -> list[str]:
    return _best(comparison, {label: standing.worst for label, standing in comparison.standings.items()})


def _best(comparison: Comparison, estimates: Mapping[str, Estimate]) -> list[str]:
    """The labels with the best value, usually one."""
    best = comparison.quantity.best(estimate.value for estimate in estimates.values())
    return [label for label, estimate in estimates.items() if estimate.value == best]


def _gain(comparison: Comparison, standing: Standing) -> str:
    close = " (within the spread)" if standing.worst_is_close else ""
    return f"{abs(standing.worst_gain):.{comparison.quantity.decimals}f} better than {comparison.baseline}{close}"


def _cost(comparison: Comparison, standing: Standing) -> str:
    amount = f"{abs(standing.mean_gain):.{comparison.quantity.decimals}f}"
    close = " (within the spread)" if standing.mean_is_close else ""
    return f"costs {amount} in the mean{close}" if standing.mean_gain < 0 else f"gains {amount} in the mean{close}"


def _text(comparison: Comparison, estimate: Estimate) -> str:
    decimals = comparison.quantity.decimals
    spread = "" if math.isnan(estimate.spread) else f" ± {estimate.spread:.{decimals}f}"
    return f"{estimate.value:.{decimals}f}{spread}"
