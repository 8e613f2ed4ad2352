import signal
from types import FrameType, TracebackType

import torch
import torch.distributed as dist


class Interruption:
    """Turns SIGTERM and Ctrl-C into a wish to stop, which the training loop grants between two steps.

    A second Ctrl-C stops at once.

    Attributes:
        received: Name of the signal that this rank received.
        exit_code: The shell's code for it; that of SIGTERM where another rank received one.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.exit_code = 143
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop. Called by all ranks in the same step; they all get the same answer."""
        if not (dist.is_initialized() and dist.get_world_size() > 1):
            return self.received is not None
        flag = torch.tensor(int(self.received is not None), device=device)
        dist.all_reduce(flag)
        return bool(flag)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        self.exit_code = 128 + number


def ignore_in_worker(worker: int) -> None:
    """Let a loader's worker live until its loop ends it, also where a whole process group is told to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
