"""One process at a time in a folder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Makes something in a folder while other processes that want to make the same wait, for as long as it takes.

    Args:
        folder: The folder, which need not be there. The lock lies beside it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        waiting = False
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if not waiting:
                    print(f"Waiting for another process, which makes {folder}.", flush=True)
                waiting = True
                time.sleep(0.5)
        yield
