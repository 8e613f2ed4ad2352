"""One process at a time: POSIX record locks, which end with the process and are not inherited by its children."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL = 0.5


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, after waiting for the process that holds it.

    Args:
        folder: The folder, which need not exist. The lock file is in its parent folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        waiting = False
        while not _acquire(file.fileno()):
            if not waiting:
                print(f"Waiting for another process, which makes {folder}.", flush=True)
            waiting = True
            time.sleep(_POLL)
        yield


@contextmanager
def exclusive(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file, or fail at once.

    Args:
        path: The lock file.
        refusal: The error message if another process holds it.

    Raises:
        ValueError: If another process holds it.
    """
    with path.open("w") as file:
        if not _acquire(file.fileno()):
            raise ValueError(refusal)
        yield


def made_by_one(folder: Path, make: Callable[[], None], is_complete: Callable[[], bool]) -> None:
    """Make something on rank 0 while the other ranks, and other runs that make the same, wait.

    Call this before the ranks form a process group, whose collectives time out.

    Args:
        folder: The folder to lock.
        make: Makes what is missing.
        is_complete: Whether everything is there.
    """
    if int(os.environ.get("RANK", 0)) == 0:
        with locked(folder):
            make()
    while not is_complete():
        time.sleep(_POLL)


def _acquire(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
