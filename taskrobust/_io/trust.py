"""What a file that others may have written is allowed to import."""

import os
import sys
from pathlib import Path

_TRUST = "TASKROBUST_TRUST"


def trust() -> None:
    """Allow everything in this process and its children, as ``--trust`` does."""
    os.environ[_TRUST] = "1"


def check_import(module: str, place: str) -> None:
    """Check that a class that a stored file names may be imported, which executes the code of its module.

    Allowed are modules of taskrobust, those that were imported already, and all with ``--trust``.

    Args:
        module: The module.
        place: The file, for the error.

    Raises:
        ValueError: If it is not allowed.
    """
    if module.partition(".")[0] != "taskrobust" and module not in sys.modules and os.environ.get(_TRUST) != "1":
        raise ValueError(
            f"Expected classes of taskrobust in {place}, got one of the module {module!r}, whose code would be "
            "executed. If you trust whoever wrote this, use --trust, or import the module first."
        )


def is_stored(file: Path) -> bool:
    """Whether a configuration is that of a run or model folder, in contrast to one that its user wrote."""
    return any(file.with_name(name).exists() for name in ("run.json", "config.json"))
