"""The tables of a comparison, independent of how they are rendered."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from taskrobust.report.comparison import Comparison, Estimate
from taskrobust.report.runs import RunRecord, Source
from taskrobust.training.results import StepCost

_DIFFERENT_KINDS: Final = (
    "The lowest score is the lowest value of a column. Scores of different kinds, such as accuracy and correlation, "
    "are not on one scale; the smallest gain over the baseline is the worst case that does not compare them."
)
_GLUE: Final = 8
"""Number of tasks in GLUE's average avg8; avg9 includes MNLI's mismatched genres."""


@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        value: A number, a name, or None if there is none.
        spread: Standard deviation over runs, NaN if unknown.
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
        starts_section: Whether a line separates it from the row above.
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
        title: Its content, with the unit.
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


def comparison_table(comparison: Comparison, name: str, title: str) -> Table:
    """Each task, mean and worst case, and the gains over the baseline, with one column per label.

    Args:
        comparison: The comparison.
        name: Name of the table's file.
        title: Its content, with the unit.
    """
    estimates, labels = comparison.estimates, comparison.labels
    rows = [
        _estimate_row(task_title, [estimates[label].get(task) for label in labels], comparison)
        for task, task_title in comparison.titles.items()
    ]
    if comparison.standings:
        rows += [*_standing_rows(comparison), *_gain_rows(comparison)]
    runs = tuple(Cell(_number_of_runs(comparison, label)) for label in labels)
    rows.append(Row("runs", runs, starts_section=True))
    return Table(name, title, tuple(labels), tuple(rows), tuple(_notes(comparison)), tuple(comparison.warnings))


def cost_table(sources: Sequence[Source], baseline: str) -> Table | None:
    """The cost of a pre-training step, with one column per label; None if nothing is known.

    Args:
        sources: All labels.
        baseline: The label that others are divided by.
    """
    logged = {source.label: [run for run in source.pretraining.values() if run.training] for source in sources}
    costs = {source.label: source.costs for source in sources}
    labels = tuple(label for label in logged if logged[label] or costs[label])
    if not labels:
        return None
    rows, notes = [], []
    if any(logged.values()):
        seconds = [_center([1e3 * run.seconds_per_step for run in logged[label]]) for label in labels]
        samples = [_center([run.samples_per_second for run in logged[label]]) for label in labels]
        rows += [
            Row("samples per second", _cells(samples)),
            Row("ms per step", _cells(seconds)),
            *_ratio_rows("time per step over baseline", labels, seconds, baseline),
        ]
        notes.append(
            "Speed: median over the lines of metrics.jsonl, then mean ± standard deviation over runs. Runs that shared "
            "a machine slowed each other down."
        )
    if any(costs.values()):
        rows += _measured_rows(labels, [costs[label] for label in labels], baseline)
        notes.append("Step cost: a step without data loading, as measured by taskrobust step-cost in cost.json.")
    return Table("cost", "Cost of a pre-training step", labels, tuple(rows), tuple(notes))


def held_out_table(runs: Sequence[RunRecord]) -> Table:
    """Held-out risk of each task, their mean and the worst at the last evaluations, with one column per run.

    Args:
        runs: The runs, of the same tasks.
    """
    lines = [run.held_out[-1] for run in runs]
    tasks = dict.fromkeys(task for line in lines for task in line["risks"])
    return Table(
        name="held_out",
        title="Held-out risk",
        columns=tuple(run.label for run in runs),
        rows=(
            *(_risk_row(task, [line["risks"].get(task) for line in lines]) for task in tasks),
            _risk_row("mean", [line["mean"] for line in lines], starts_section=True),
            _risk_row("worst", [line["worst"] for line in lines]),
            Row("worst task", tuple(Cell(line["worst_task"]) for line in lines)),
        ),
    )


def _risk_row(name: str, risks: Sequence[float | None], starts_section: bool = False) -> Row:
    best = min((risk for risk in risks if risk is not None), default=None)
    return Row(name, tuple(Cell(risk, best=risk is not None and risk == best) for risk in risks), ".3f", starts_section)


def _estimate_row(
    name: str, estimates: Sequence[Estimate | None], comparison: Comparison, starts_section: bool = False
) -> Row:
    best = comparison.quantity.best(estimate.value for estimate in estimates if estimate)
    cells = tuple(
        Cell(estimate.value, estimate.spread, best=estimate.value == best) if estimate else Cell(None)
        for estimate in estimates
    )
    return Row(name, cells, f".{comparison.quantity.decimals}f", starts_section)


def _standing_rows(comparison: Comparison) -> list[Row]:
    standings = [comparison.standings[label] for label in comparison.labels]
    number = len(comparison.compared)
    also = [task for task in comparison.also if all(task in tasks for tasks in comparison.values.values())]
    is_glue = also and number == _GLUE
    name = f"avg{number}" if is_glue else f"mean of {number}"
    rows = [_estimate_row(name, [standing.mean for standing in standings], comparison, starts_section=True)]
    if is_glue:
        means = [comparison.mean(label, [*comparison.compared, *also]) for label in comparison.labels]
        rows.append(_estimate_row(f"avg{number + len(also)}", means, comparison))
    worst = f"{comparison.quantity.extreme} {comparison.quantity.noun}"
    rows.append(_estimate_row(worst, [standing.worst for standing in standings], comparison))
    tasks = tuple(Cell(comparison.titles[standing.worst_task]) for standing in standings)
    return [*rows, Row(f"task of the {worst}", tasks)]


def _gain_rows(comparison: Comparison) -> list[Row]:
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
    tasks = {label: comparison.titles[standing.least_gain_task] for label, standing in others.items()}
    return [*rows, Row("task of the smallest gain", tuple(Cell(tasks.get(label)) for label in comparison.labels))]


def _notes(comparison: Comparison) -> list[str]:
    several = max(estimate.runs for tasks in comparison.estimates.values() for estimate in tasks.values()) > 1
    notes = list(comparison.notes)
    if several:
        notes.append(f"{comparison.statistic.capitalize()} over runs ± standard deviation.")
    if comparison.standings and len(comparison.labels) > 1:
        better = "higher" if comparison.quantity.larger_is_better else "lower"
        notes.append(f"Gains are over {comparison.baseline}; positive is better ({better} {comparison.quantity.noun}).")
        if several:
            notes.append("≈: within the spread (the intervals of value ± spread overlap).")
    if comparison.quantity.larger_is_better and comparison.standings:
        notes.append(_DIFFERENT_KINDS)
    return notes


def _number_of_runs(comparison: Comparison, label: str) -> str:
    numbers = {estimate.runs for estimate in comparison.estimates[label].values()}
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _measured_rows(labels: Sequence[str], costs: Sequence[Sequence[StepCost]], baseline: str) -> list[Row]:
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
