import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from taskrobust.reporting.runs import RunRecord


class HeldOutTable:
    """Held-out risk of each task, their mean and the worst, one column a run, from the runs' last evaluations.

    Args:
        runs: The runs, of the same tasks.
    """

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        self.columns = {run.label: run.held_out[-1] for run in runs}
        self.tasks = list(dict.fromkeys(task for line in self.columns.values() for task in line["risks"]))

    def rows(self) -> list[tuple[str, list[float]]]:
        """Name and values of each row; NaN where a run has no value."""
        lines = self.columns.values()
        rows = [(task, [line["risks"].get(task, float("nan")) for line in lines]) for task in self.tasks]
        return [*rows, ("mean", [line["mean"] for line in lines]), ("worst", [line["worst"] for line in lines])]

    def worst_tasks(self) -> list[str]:
        """The worst task of each run."""
        return [line["worst_task"] for line in self.columns.values()]

    def rich(self) -> Table:
        """The table for a terminal: mean and worst set apart, the best value of a row in bold."""
        table = Table(title="Held-out risk")
        table.add_column("task")
        for label in self.columns:
            table.add_column(label, justify="right")
        for name, values in self.rows():
            if name == "mean":
                table.add_section()
            best = min(values)
            table.add_row(name, *(f"[bold]{v:.3f}[/bold]" if v == best else f"{v:.3f}" for v in values))
        table.add_row("worst task", *self.worst_tasks())
        return table

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [f"| task | {' | '.join(self.columns)} |", f"|---|{'---:|' * len(self.columns)}"]
        lines += [f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |" for name, values in self.rows()]
        lines.append(f"| worst task | {' | '.join(self.worst_tasks())} |")
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> None:
        """Write table.md and table.json."""
        (folder / "table.md").write_text(self.markdown())
        (folder / "table.json").write_text(json.dumps(self.columns, indent=2) + "\n")
