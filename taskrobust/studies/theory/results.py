"""What the commands leave: a table on the screen, in Markdown and in JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column flush left, numbers flush right.

    Args:
        title: Line above the table.
        header: Names of the columns.
        rows: Cells, row by row.
    """
    table = Table(title=title, title_justify="left")
    for column, name in enumerate(header):
        table.add_column(name, justify="left" if column == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def markdown_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown.

    Args:
        title: As in :func:`show_table`.
        header: As in :func:`show_table`.
        rows: As in :func:`show_table`.
    """
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    lines.insert(1, f"|---|{'---:|' * (len(header) - 1)}")
    return "\n".join([f"{title}:", "", *lines, ""])


def save(folder: Path, name: str, tables: Sequence[str], values: Any) -> None:
    """Write NAME.md and NAME.json.

    Args:
        folder: The folder, made if need be.
        name: Name of the files.
        tables: Tables in Markdown.
        values: What they are made of, unrounded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(tables))
    (folder / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n")
