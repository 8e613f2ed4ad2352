import os
from pathlib import Path


class AppendedFile:
    """A file that a full disk cannot tear: what does not fit waits in memory.

    Args:
        path: The file, made with the first write.

    Attributes:
        waiting: What the disk did not take yet, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[bytes] = []

    def append(self, record: bytes) -> None:
        """Write a record after those that wait.

        Raises:
            OSError: If the disk does not take it. It waits.
        """
        self.waiting.append(record)
        self.write()

    def write(self) -> None:
        """Write what waits, all or nothing.

        Raises:
            OSError: If the disk does not take it.
        """
        if not self.waiting:
            return
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            rest = b"".join(self.waiting)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
        self.waiting.clear()
