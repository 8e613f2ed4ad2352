import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskrobust._io.atomic import write_atomically
from taskrobust._io.settings import check_same_settings


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
