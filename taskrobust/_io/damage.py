"""One error for whatever a library raises on a damaged file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def damage_named(file: Path, expected: str) -> Iterator[None]:
    """Turn any error of reading a file into a ``ValueError`` that names it.

    A ``ValueError`` that names the file, or another one in its folder, is passed on.

    Example:
        >>> import json
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "scores.json"
        ...     _ = file.write_text("[1,")
        ...     try:
        ...         with damage_named(file, "scores in JSON"):
        ...             json.loads(file.read_text())
        ...     except ValueError as error:
        ...         print(str(error).replace(folder, "FOLDER"))
        Expected scores in JSON in FOLDER/scores.json: Expecting value: line 1 column 4 (char 3).

    Args:
        file: The file.
        expected: What it should hold.

    Raises:
        ValueError: For any error.
    """
    try:
        yield
    except Exception as error:  # libraries raise errors of many kinds on damaged files
        if type(error) is ValueError and str(file.parent) in str(error):
            raise
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise ValueError(f"Expected {expected} in {file}: {reason}.") from error
