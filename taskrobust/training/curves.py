import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from taskrobust.training.appending import AppendedFile


class Curves:
    """Writes TensorBoard's view of a run. Points wait in memory while the disk is full.

    TensorBoard's own writer has a thread, which a full disk ends.

    Args:
        folder: Where TensorBoard looks.
        step: The step from which the run goes on: points after it that are there already are passed over.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(folder / name)
        start = SessionLog(status=SessionLog.SessionStatus.START)
        events = Event(file_version="brain.Event:2"), Event(step=step + 1, session_log=start)
        self._file.waiting = [_record(event) for event in events]

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write one point of each curve.

        Raises:
            OSError: If the disk does not take them. They wait.
        """
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._file.append(_record(Event(step=step, summary=Summary(value=points))))


def _record(event: Event) -> bytes:
    event.wall_time = time.time()
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
