"""Results of the study commands: tables on the screen, in Markdown and in JSON, and intermediate cells."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from taskrobust._io.atomic import write_atomically
from taskrobust._io.settings import check_same_settings


def save(folder: Path, name: str, tables: Sequence[str], values: Any) -> None:
    """Write NAME.md and NAME.json.

    Args:
        folder: Folder of the files. Created if missing.
        name: File name without extension.
        tables: Markdown tables.
        values: The unrounded values of the tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.md", "\n".join(tables))
    _write_json(folder / f"{name}.json", values)


def print_paths(folder: Path, name: str, plot: str) -> None:
    """Print the paths of the tables and the plot of a command.

    Args:
        folder: Folder of the files.
        name: File name of the tables without extension.
        plot: File name of the plot.
    """
    Console().print(f"Table: {folder / name}.md, {folder / name}.json. Plot: {folder / plot}", soft_wrap=True)


class Cells:
    """Cells of a slow table, one file per cell, so that an interrupted command resumes.

    Args:
        folder: Folder of the files. Created if missing.
        settings: Settings that all cells share.

    Raises:
        ValueError: If the folder holds cells computed with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "settings.json"
        if path.exists():
            check_same_settings(folder, json.loads(path.read_text()), settings)
        _write_json(path, settings)

    def get(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Read a cell from its file, or compute and write it.

        Args:
            name: Name of the cell and of its file.
            compute: Computes the cell.
        """
        path = self.folder / f"{name}.json"
        if not path.exists():
            _write_json(path, compute())
        cell: dict[str, Any] = json.loads(path.read_text())
        return cell


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")
