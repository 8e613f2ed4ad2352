import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from taskrobust.studies.pretext.plots import plot_synthetic
from taskrobust.studies.pretext.synthetic import CURVES, Errors, measure
from taskrobust.studies.results import Cells

_COLUMNS = {
    "processed": "processor",
    "boosted": "processor, 40 labels",
    "plain": "plain SSL, 40 labels",
    "pooled": "plain SSL, 40 + n0 labels",
}


def pretext_synthetic(output: Path = Path("runs/pretext/synthetic"), seeds: int = 3) -> None:
    """Measure processors on generated data against the extra samples n0, the penalty λ, the features d_f and width.

    Each row has the squared error of y with the processor (all downstream labels in the world, and 40), and what plain
    self-supervised learning has with 40 labels and with those of the processor as well. Writes table.md, table.json and
    errors.png. Takes about five minutes; what is in cells/ from an earlier call is kept.

    Args:
        output: Folder of the results.
        seeds: Seeds of each point; the median is shown.

    Raises:
        ValueError: If there is no seed.
    """
    if seeds < 1:
        raise ValueError(f"Expected at least 1 seed, got {seeds}.")
    cells = Cells(output / "cells", {"seeds": seeds})
    curves: dict[str, dict[float, Errors]] = {}
    for axis, settings in CURVES.items():
        points = track(settings.items(), f"{axis:>6}")
        curves[axis] = {
            value: Errors(**cells.get(f"{axis}-{value:g}", lambda s=setting: asdict(measure(s, seeds))))  # type: ignore[misc]
            for value, setting in points
        }
    rows = [
        [f"{axis} = {value:g}", *(f"{getattr(errors, field):.3f}" for field in _COLUMNS)]
        for axis, points_of_axis in curves.items()
        for value, errors in points_of_axis.items()
    ]
    _show("Squared error of y: 0.5 is the least, 1 that of a constant", ["", *_COLUMNS.values()], rows, output)
    numbers = {a: {f"{value:g}": asdict(errors) for value, errors in c.items()} for a, c in curves.items()}
    (output / "table.json").write_text(json.dumps(numbers, indent=2) + "\n")
    plot_synthetic(curves, output / "errors.png")
    Console().print(f"Results: {output}")


def _show(title: str, columns: list[str], rows: list[list[str]], output: Path) -> None:
    """Print a table and write it as table.md."""
    table = Table(title=title)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    for row in rows:
        table.add_row(*row)
        lines.append(f"| {' | '.join(row)} |")
    (output / "table.md").write_text("\n".join(lines) + "\n")
    Console().print(table)
