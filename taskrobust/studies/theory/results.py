"""What the commands leave: a table on the screen, in Markdown and in JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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
