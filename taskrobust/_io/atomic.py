"""Files and folders that appear under their name only once they are complete."""

import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".unfinished"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file or folder at, which takes its place when the block ends without an error.

    An earlier file or folder at that place stays there until then. Only one process may write to a place at a time.

    Args:
        path: The place. Its parent folder must exist.

    Yields:
        A hidden path beside it.
    """
    unfinished = path.with_name(f".{path.name}{_UNFINISHED}")
    before = path.with_name(f".{path.name}.before{_UNFINISHED}")
    _remove(unfinished)  # of a process that was killed
    try:
        yield unfinished
        if path.is_dir():
            path.rename(before)
        unfinished.replace(path)
    except BaseException:
        _remove(unfinished)
        if before.exists() and not path.exists():
            before.rename(path)
        raise
    _remove(before)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in one operation: a reader sees the old content or the new one.

    Args:
        path: The file. Its folder must exist.
        content: Text, encoded as UTF-8, or bytes.

    Raises:
        OSError: If the disk is full. The old content remains.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files and folders of processes that were killed."""
    for leftover in folder.glob(f".*{_UNFINISHED}"):
        _remove(leftover)


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
