"""Render tables as Markdown, CSV, JSON and LaTeX, and for the terminal."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from taskrobust._io.tables import markdown_table
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
    """The text of a cell, such as 53.2 ± 1.1."""
    if cell.value is None:
        return MISSING
    if isinstance(cell.value, str):
        return cell.value
    spread = "" if math.isnan(cell.spread) else f" ± {format(cell.spread, row.spec.lstrip('+z'))}"
    return f"{'≈ ' if cell.close else ''}{format(cell.value, row.spec)}{spread}"


def markdown(table: Table) -> str:
    """The table in Markdown, without title and notes. The best value of each row is bold."""
    rows = []
    for row in table.rows:
        texts = [cell_text(cell, row) for cell in row.cells]
        bold = [f"**{text}**" if cell.best else text for text, cell in zip(texts, row.cells, strict=True)]
        rows.append([row.name, *bold])
    return markdown_table(["", *table.columns], rows)


def csv_text(table: Table) -> str:
    """The table in CSV, one line per cell: row, label, value, spread. Numbers are not rounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "label", "value", "spread"])
    for row in table.rows:
        for label, cell in zip(table.columns, row.cells, strict=True):
            writer.writerow(map(_inert, [row.name, label, cell.value, _number(cell.spread)]))
    return text.getvalue()


def _inert(value: Any) -> Any:
    """A cell that a spreadsheet shows instead of computing it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@" and value else value


def json_value(table: Table) -> dict[str, Any]:
    """The table as a JSON object. Numbers are not rounded."""
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
    """The table in LaTeX, for the package booktabs, with one line per label as in the paper's tables."""
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
    """The table for a terminal. The best value of each row is bold."""
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


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> None:
    """Print a table of texts in the terminal: the first column flush left, the others flush right.

    Args:
        header: Names of the columns.
        rows: Cells, row by row.
        title: Line above the table.
    """
    rich = RichTable(title=title, title_justify="left")
    for number, name in enumerate(header):
        rich.add_column(name, justify="right" if number else "left")
    for row in rows:
        rich.add_row(*row)
    Console().print(rich)


def _latex_cell(cell: Cell, row: Row) -> str:
    text = _escape(cell_text(cell, row))
    if isinstance(cell.value, float):
        text = text.replace("-", "$-$")
    return rf"\textbf{{{text}}}" if cell.best else text


def _escape(text: str) -> str:
    return text.translate(_LATEX)


def _number(value: float | str | None) -> float | str | None:
    """None in place of NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
