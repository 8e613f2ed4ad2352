from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.progress import track

from taskrobust._io.settings import AT_LEAST_1
from taskrobust._io.tables import markdown_table
from taskrobust.report.render import show_table
from taskrobust.studies.pretext.plots import plot_synthetic
from taskrobust.studies.pretext.synthetic import CURVES, Errors, measure
from taskrobust.studies.results import Cells, print_paths, save

_COLUMNS = {
    "processed": "processor",
    "boosted": "processor, 40 labels",
    "plain": "plain SSL, 40 labels",
    "pooled": "plain SSL, 40 + n0 labels",
}


def pretext_synthetic(output: Path = Path("runs/pretext/synthetic"), seeds: Annotated[int, AT_LEAST_1] = 3) -> None:
    """Measure processors on synthetic data for varying extra samples n0, penalty λ, features d_f and width.

    Each row contains the squared error of y with a processor, for infinitely many downstream labels and for 40, and
    that of plain self-supervised learning, for 40 labels and for these plus the n0 labels of the processor. Writes
    table.md, table.json and errors.png. Takes about five minutes. Existing results in cells/ are reused.

    Args:
        output: Folder for the results.
        seeds: Number of seeds per point. The table shows medians.

    Raises:
        ValueError: If ``seeds`` is not positive.
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
    numbers = {a: {f"{value:g}": asdict(errors) for value, errors in c.items()} for a, c in curves.items()}
    header = ["", *_COLUMNS.values()]
    show_table(header, rows, "Squared error of y: 0.5 is optimal, 1 is that of a constant")
    save(output, "table", [markdown_table(header, rows)], numbers)
    plot_synthetic(curves, output / "errors.png")
    print_paths(output, "table", "errors.png")
