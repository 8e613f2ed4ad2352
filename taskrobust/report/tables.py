"""The tables of a comparison: cells by row and label, whatever they are written as."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from taskrobust.report.comparison import GLUE_EIGHT, MISMATCHED, Compared, Comparison, Estimate
from taskrobust.report.runs import MeasuredCost, Source, speed_of


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Args:
        value: A number, a name, or None where there is none.
        spread: Standard deviation over runs, NaN where there is none.
        best: Whether it is the best value of its row.
        close: Whether it is a gain within the spread.
    """

    value: float | str | None
    spread: float = math.nan
    best: bool = False
    close: bool = False


@dataclass(frozen=True)
class Row:
    """A row, with a cell for each column.

    Args:
        name: Name of the row.
        cells: The cells.
        spec: Format of its numbers, such as ``+.1f``.
        starts_section: Whether a line is drawn above it.
    """

    name: str
    cells: tuple[Cell, ...]
    spec: str = ".1f"
    starts_section: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: Name of its file.
        title: What it shows, with the unit.
        columns: Labels of the columns.
        rows: The rows.
        notes: Sentences on how to read it.
        warnings: Sentences on what is missing or cannot be compared.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


DIFFERENT_KINDS: Final = (
    "The lowest score is the lowest value of a column. Scores of different kinds, such as accuracy and correlation, "
    "are not on one scale; the smallest gain over the baseline is the worst case that does not compare them."
)


def comparison_table(compared: Compared, name: str, title: str) -> Table:
    """Each task, mean and worst, and the gains over the baseline, one column a label.

    Args:
        compared: The comparison.
        name: Name of the table's file.
        title: What it shows, with the unit.
    """
    comparison = compared.comparison
    rows = []
    for task, task_name in compared.names.items():
        estimates = [comparison.estimates[label].get(task) for label in comparison.labels]
        rows.append(_estimate_row(task_name, estimates, comparison))
    if comparison.standings:
        rows += [*_standing_rows(compared), *_gain_rows(compared)]
    runs = tuple(Cell(_number_of_runs(comparison, label)) for label in comparison.labels)
    rows.append(Row("runs", runs, starts_section=True))
    return Table(name, title, tuple(comparison.labels), tuple(rows), tuple(_notes(compared)), tuple(compared.warnings))


def cost_table(sources: Sequence[Source], baseline: str) -> Table | None:
    """What a step of pre-training costs, one column a label; None where nothing is known of it.

    Args:
        sources: All labels.
        baseline: The label that others are divided by.
    """
    speeds = {s.label: [speed for run in s.pretraining.values() if (speed := speed_of(run))] for s in sources}
    costs = {source.label: source.costs for source in sources if source.costs}
    labels = tuple(label for label in speeds if speeds[label] or label in costs)
    if not labels:
        return None
    rows, notes = [], []
    if any(speeds.values()):
        seconds = [_center([1e3 * speed.seconds_per_step for speed in speeds[label]]) for label in labels]
        samples = [_center([speed.samples_per_second for speed in speeds[label]]) for label in labels]
        rows += [
            Row("samples per second", _cells(samples)),
            Row("ms per step", _cells(seconds)),
            *_ratio_rows("time per step over baseline", labels, seconds, baseline),
        ]
        notes.append(
            "Speed: median over the lines of metrics.jsonl, then mean ± standard deviation over runs. Runs that shared "
            "a machine slowed each other down."
        )
    if costs:
        rows += _measured_rows(labels, [costs.get(label, []) for label in labels], baseline)
        notes.append("Step cost: a step without loading data, as taskrobust step-cost timed it in cost.json.")
    return Table("cost", "Cost of a step of pre-training", labels, tuple(rows), tuple(notes))


def _estimate_row(
    name: str, estimates: Sequence[Estimate | None], comparison: Comparison, starts_section: bool = False
) -> Row:
    quantity = comparison.quantity
    values = [estimate.value for estimate in estimates if estimate]
    best = (max if quantity.larger_is_better else min)(values)
    cells = tuple(
        Cell(estimate.value, estimate.spread, best=estimate.value == best) if estimate else Cell(None)
        for estimate in estimates
    )
    return Row(name, cells, f".{quantity.decimals}f", starts_section)


def _standing_rows(compared: Compared) -> list[Row]:
    comparison = compared.comparison
    standings = [comparison.standings[label] for label in comparison.labels]
    name = "avg8" if set(comparison.compared) == set(GLUE_EIGHT) else f"mean of {len(comparison.compared)}"
    rows = [_estimate_row(name, [standing.mean for standing in standings], comparison, starts_section=True)]
    if name == "avg8" and all(MISMATCHED in comparison.values[label] for label in comparison.labels):
        means = [comparison.mean(label, [*comparison.compared, MISMATCHED]) for label in comparison.labels]
        rows.append(_estimate_row("avg9", means, comparison))
    worst = f"{comparison.quantity.extreme} {comparison.quantity.noun}"
    rows.append(_estimate_row(worst, [standing.worst for standing in standings], comparison))
    rows.append(Row(f"task of the {worst}", tuple(Cell(compared.names[standing.worst_task]) for standing in standings)))
    return rows


def _gain_rows(compared: Compared) -> list[Row]:
    comparison = compared.comparison
    others = {label: comparison.standings[label] for label in comparison.labels if label != comparison.baseline}
    if not others:
        return []
    close = comparison.is_close
    gains = {
        "gain in the mean": {label: (s.mean_gain, s.mean_is_close) for label, s in others.items()},
        f"gain in the {comparison.quantity.extreme} {comparison.quantity.noun}": {
            label: (s.worst_gain, s.worst_is_close) for label, s in others.items()
        },
        "smallest gain": {label: (s.least_gain, close(label, s.least_gain_task)) for label, s in others.items()},
    }
    rows: list[Row] = []
    for name, of_label in gains.items():
        best = max(gain for gain, _ in of_label.values())
        cells = tuple(
            Cell(of_label[label][0], best=of_label[label][0] == best, close=of_label[label][1])
            if label in of_label
            else Cell(None)
            for label in comparison.labels
        )
        rows.append(Row(name, cells, f"+z.{comparison.quantity.decimals}f", starts_section=not rows))
    tasks = (compared.names[others[label].least_gain_task] if label in others else None for label in comparison.labels)
    return [*rows, Row("task of the smallest gain", tuple(Cell(task) for task in tasks))]


def _notes(compared: Compared) -> list[str]:
    comparison = compared.comparison
    several = max(estimate.runs for tasks in comparison.estimates.values() for estimate in tasks.values()) > 1
    notes = list(compared.notes)
    if several:
        notes.append(f"{comparison.statistic.capitalize()} over runs ± standard deviation.")
    if comparison.standings and len(comparison.labels) > 1:
        better = "higher" if comparison.quantity.larger_is_better else "lower"
        notes.append(f"Gains are over {comparison.baseline}, positive is better ({better} {comparison.quantity.noun}).")
        if several:
            notes.append("≈: within the spread, as the two intervals of value ± spread overlap.")
    if comparison.quantity.larger_is_better and comparison.standings:
        notes.append(DIFFERENT_KINDS)
    return notes


def _number_of_runs(comparison: Comparison, label: str) -> str:
    numbers = {estimate.runs for estimate in comparison.estimates[label].values()}
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _measured_rows(labels: Sequence[str], costs: Sequence[Sequence[MeasuredCost]], baseline: str) -> list[Row]:
    flops = [_center([cost.flops_per_step / 1e9 for cost in of_label]) for of_label in costs]
    seconds = [_center([1e3 * cost.seconds_per_step for cost in of_label]) for of_label in costs]
    sizes = [", ".join({str(cost.batch_size): None for cost in of_label}) or None for of_label in costs]
    devices = [", ".join(dict.fromkeys(cost.device for cost in of_label)) or None for of_label in costs]
    return [
        Row("GFLOPs per step", _cells(flops), starts_section=True),
        *_ratio_rows("FLOPs over baseline", labels, flops, baseline),
        Row("ms per step, by step-cost", _cells(seconds)),
        *_ratio_rows("time over baseline, by step-cost", labels, seconds, baseline),
        Row("samples in that step", tuple(Cell(size) for size in sizes)),
        Row("device", tuple(Cell(device) for device in devices)),
    ]


def _ratio_rows(name: str, labels: Sequence[str], estimates: Sequence[Estimate | None], baseline: str) -> list[Row]:
    unit = dict(zip(labels, estimates, strict=True)).get(baseline)
    if unit is None:
        return []
    return [Row(name, tuple(Cell(estimate.value / unit.value if estimate else None) for estimate in estimates), ".2f")]


def _center(values: Sequence[float]) -> Estimate | None:
    return Estimate.of(values) if values else None


def _cells(estimates: Sequence[Estimate | None]) -> tuple[Cell, ...]:
    return tuple(Cell(estimate.value, estimate.spread) if estimate else Cell(None) for estimate in estimates)
