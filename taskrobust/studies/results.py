"""What the commands leave: a table on the screen, in Markdown and in JSON."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from taskrobust._io.atomic import write_atomically
from taskrobust._io.manifest import check_same_settings


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


class Cells:
    """The cells of a table that takes long, each in a file, so that a table that was cut off goes on from there.

    Args:
        folder: Folder of the cells, made if it is not there.
        settings: What all cells have been computed with.

    Raises:
        ValueError: If the folder holds cells of other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "settings.json"
        there = json.loads(path.read_text()) if path.exists() else settings
        check_same_settings(folder, there, settings)
        _write(path, settings)

    def get(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A cell from its file, or computed and written.

        Args:
            name: Name of the cell and its file.
            compute: Computes the cell.
        """
        path = self.folder / f"{name}.json"
        if not path.exists():
            _write(path, compute())
        cell: dict[str, Any] = json.loads(path.read_text())
        return cell


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")
