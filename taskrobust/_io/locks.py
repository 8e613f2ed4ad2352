"""One process at a time: POSIX record locks, which end with the process and are not inherited by its children."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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


class Lock:
    """A lock file that this process holds until :meth:`release`, or until it ends.

    Args:
        path: The lock file.
        refusal: The error message if another process holds it.

    Raises:
        ValueError: If another process holds it.
    """

    def __init__(self, path: Path, refusal: str) -> None:
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        if not _acquire(self._descriptor):
            self.release()
            raise ValueError(refusal)

    def release(self) -> None:
        """Let other processes in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


def made_by_one(folder: Path, make: Callable[[], None], is_complete: Callable[[], bool]) -> None:
    """Make something on rank 0 while the other ranks, and other runs that make the same, wait.

    Call this before the ranks form a process group, whose collectives time out. What is complete needs no lock, so that
    it can be read from a folder in which nothing can be written.

    Args:
        folder: The folder to lock.
        make: Makes what is missing, and checks what is there.
        is_complete: Whether everything is there.
    """
    if int(os.environ.get("RANK", 0)) == 0:
        with nullcontext() if is_complete() else locked(folder):
            make()
    while not is_complete():
        time.sleep(_POLL)


def _acquire(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
