"""Tables as text: Markdown, CSV, JSON, LaTeX, and for the terminal."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table as RichTable
from rich.text import Text

from taskrobust.report.runs import RunRecord
from taskrobust.report.tables import Cell, Row, Table

MISSING: Final = "–"  # noqa: RUF001

_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "≈": r"$\approx$",
        MISSING: "--",
    }
    | {character: f"\\{character}" for character in "{}$&#%_"}
)


def cell_text(cell: Cell, row: Row) -> str:
    """A cell as a reader sees it: 53.2 ± 1.1."""
    if cell.value is None:
        return MISSING
    if isinstance(cell.value, str):
        return cell.value
    spread = "" if math.isnan(cell.spread) else f" ± {format(cell.spread, row.spec.lstrip('+z'))}"
    return f"{'≈ ' if cell.close else ''}{format(cell.value, row.spec)}{spread}"


def markdown(table: Table) -> str:
    """The table in Markdown, the best value of a row in bold, without title and notes."""
    lines = [["", *table.columns], ["---", *["---:"] * len(table.columns)]]
    for row in table.rows:
        texts = [cell_text(cell, row) for cell in row.cells]
        bold = [f"**{text}**" if cell.best else text for text, cell in zip(texts, row.cells, strict=True)]
        lines.append([row.name, *bold])
    escaped = ([text.replace("|", "\\|") for text in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def csv_text(table: Table) -> str:
    """The table in CSV, one line a cell, numbers unrounded: row, label, value, spread."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "label", "value", "spread"])
    for row in table.rows:
        for label, cell in zip(table.columns, row.cells, strict=True):
            writer.writerow([row.name, label, cell.value, _number(cell.spread)])
    return text.getvalue()


def json_value(table: Table) -> dict[str, Any]:
    """The table as a JSON object, numbers unrounded."""
    rows = {
        row.name: {
            label: {
                "value": _number(cell.value),
                "spread": _number(cell.spread),
                "best": cell.best,
                "within_spread": cell.close,
            }
            for label, cell in zip(table.columns, row.cells, strict=True)
        }
        for row in table.rows
    }
    return {
        "title": table.title,
        "labels": list(table.columns),
        "rows": rows,
        "notes": list(table.notes),
        "warnings": list(table.warnings),
    }


def latex(table: Table) -> str:
    """The table in LaTeX, for the package booktabs: one line a label, as in the paper's tables."""
    header = " & ".join(["", *(_escape(row.name) for row in table.rows)])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(' '.join([f'{table.title}.', *table.notes, *table.warnings]))}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.rows)}}}",
        r"\toprule",
        rf"{header} \\",
        r"\midrule",
    ]
    for column, label in enumerate(table.columns):
        cells = (_latex_cell(row.cells[column], row) for row in table.rows)
        lines.append(rf"{' & '.join([_escape(label), *cells])} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def rich_table(table: Table) -> RichTable:
    """The table for a terminal, the best value of a row in bold."""
    rich = RichTable(title=table.title, title_justify="left")
    rich.add_column("")
    for label in table.columns:
        rich.add_column(Text(label), justify="right")
    for row in table.rows:
        if row.starts_section:
            rich.add_section()
        texts = (Text(cell_text(cell, row), style="bold" if cell.best else "") for cell in row.cells)
        rich.add_row(Text(row.name), *texts)
    return rich


def _latex_cell(cell: Cell, row: Row) -> str:
    text = _escape(cell_text(cell, row))
    if isinstance(cell.value, float):
        text = text.replace("-", "$-$")
    return rf"\textbf{{{text}}}" if cell.best else text


def _escape(text: str) -> str:
    return text.translate(_LATEX)


def _number(value: float | str | None) -> float | str | None:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        return rich_table(self.table)

    def markdown(self) -> str:
        """The table in Markdown."""
        return markdown(self.table)

    def save(self, folder: Path) -> None:
        """Write table.md and table.json."""
        (folder / "table.md").write_text(self.markdown())
        (folder / "table.json").write_text(json.dumps(self.columns, indent=2) + "\n")

    def _row(self, name: str, values: Sequence[float | None], starts_section: bool = False) -> Row:
        best = min((value for value in values if value is not None), default=None)
        cells = tuple(Cell(value, best=value is not None and value == best) for value in values)
        return Row(name, cells, ".3f", starts_section)
