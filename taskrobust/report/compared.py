"""A comparison with all that a reader has to know of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskrobust.report.comparison import Comparison, Quantity, Statistic, Values


@dataclass(frozen=True)
class Compared:
    """A comparison with all that a reader has to know of it.

    Args:
        comparison: The comparison.
        names: What the tasks are called.
        notes: Sentences on how the values were measured.
        warnings: Sentences on what is missing or differs.
    """

    comparison: Comparison
    names: Mapping[str, str]
    notes: Sequence[str]
    warnings: Sequence[str]


def compared(
    values: Values,
    counted: Sequence[str],
    baseline: str,
    quantity: Quantity,
    statistic: Statistic,
    names: Mapping[str, str],
    notes: Sequence[str],
    warnings: Sequence[str],
) -> Compared:
    """Compare, and warn of tasks that not all labels have."""
    warnings = list(warnings)
    if baseline not in values:
        other = next(iter(values))
        warnings.append(f"The baseline {baseline} has no {quantity.noun}s: gains are over {other}.")
        baseline = other
    comparison = Comparison(values, counted, baseline, quantity, statistic)
    missing = {label: comparison.missing(label) for label in comparison.labels}
    for label, tasks in missing.items():
        if tasks:
            warnings.append(f"{label} lacks {', '.join(names[task] for task in tasks)}.")
    if not comparison.compared:
        warnings.append("No task is common to all labels: there is no mean and no worst case to compare.")
    elif any(missing.values()):
        common = ", ".join(names[task] for task in comparison.compared)
        warnings.append(f"Mean, worst case and gains are over the tasks that all labels have: {common}.")
    return Compared(comparison, names, notes, warnings)
