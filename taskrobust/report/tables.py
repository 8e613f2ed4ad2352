import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from taskrobust.report import formats
from taskrobust.report.cells import Cell, Row, Table
from taskrobust.report.runs import RunRecord


class HeldOutTable:
    """Held-out risk of each task, their mean and the worst, one column a run, from the runs' last evaluations.

    Args:
        runs: The runs, of the same tasks.
    """

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        self.columns = {run.label: run.held_out[-1] for run in runs}
        tasks = dict.fromkeys(task for line in self.columns.values() for task in line["risks"])
        lines = list(self.columns.values())
        risks = [self._row(task, [line["risks"].get(task) for line in lines]) for task in tasks]
        self.table = Table(
            name="held_out",
            title="Held-out risk",
            columns=tuple(self.columns),
            rows=(
                *risks,
                self._row("mean", [line["mean"] for line in lines], starts_section=True),
                self._row("worst", [line["worst"] for line in lines]),
                Row("worst task", tuple(Cell(line["worst_task"]) for line in lines)),
            ),
        )

    def rich(self) -> RichTable:
        """The table for a terminal."""
        return formats.rich_table(self.table)

    def markdown(self) -> str:
        """The table in Markdown."""
        return formats.markdown(self.table)

    def save(self, folder: Path) -> None:
        """Write table.md and table.json."""
        (folder / "table.md").write_text(self.markdown())
        (folder / "table.json").write_text(json.dumps(self.columns, indent=2) + "\n")

    def _row(self, name: str, values: Sequence[float | None], starts_section: bool = False) -> Row:
        best = min((value for value in values if value is not None), default=None)
        cells = tuple(Cell(value, best=value is not None and value == best) for value in values)
        return Row(name, cells, ".3f", starts_section)
