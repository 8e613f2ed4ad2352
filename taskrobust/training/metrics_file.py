import json
import math
from pathlib import Path
from typing import Any

from taskrobust._io.atomic import write_atomically
from taskrobust.training.appending import AppendedFile


class MetricsFile:
    """A JSON lines file whose lines wait in memory while the disk is full.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = AppendedFile(path)

    @property
    def waiting(self) -> list[bytes]:
        """Lines that the disk did not take yet, in order. May be set to those of a checkpoint."""
        return self._file.waiting

    @waiting.setter
    def waiting(self, lines: list[bytes]) -> None:
        self._file.waiting = lines

    def start(self, step: int, last_step: int) -> None:
        """Drop the lines that a run which goes on from ``step`` writes again, and a torn one.

        Args:
            step: The step.
            last_step: The run's last step, whose evaluation is always repeated.

        Raises:
            OSError: If the disk does not take the lines that wait.
        """
        if self.path.exists():
            kept = []
            for text in self.path.read_bytes().splitlines(keepends=True):
                line = json.loads(text) if text.endswith(b"\n") else None
                is_last_evaluation = line is not None and line["step"] == last_step and line["split"] == "held_out"
                if line is None or line["step"] > step or is_last_evaluation:
                    break
                if text not in self.waiting:  # else it was written after the checkpoint in which it waits
                    kept.append(text)
            write_atomically(self.path, b"".join(kept))
        self._file.write()

    def append(self, line: dict[str, Any]) -> None:
        """Write a line after those that wait.

        Raises:
            OSError: If the disk does not take it. It waits.
        """
        self._file.append(json.dumps(_without_nan(line)).encode() + b"\n")

    def write(self) -> None:
        """Write the lines that wait.

        Raises:
            OSError: If the disk does not take them.
        """
        self._file.write()


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a task that was absent from all steps of a line has the risk null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
