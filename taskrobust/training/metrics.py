"""metrics.jsonl: one line per evaluation and per ``log_every`` steps, the record of a run."""

import json
import math
import os
import resource
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taskrobust._io.atomic import write_atomically
from taskrobust.loss import MultiTaskLoss
from taskrobust.outputs import TaskLosses
from taskrobust.training.evaluation import Evaluation

CLOCKED = ("samples_per_second", "data_loading_share", "peak_memory_gib", "mfu")
"""Metrics that depend on the machine. All others of a resumed run equal those of an uninterrupted one."""

_PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense operations per second in 16 bits, by a part of the device's name, from the vendors' data sheets."""


class MetricsFile:
    """A JSON Lines file. Lines that do not fit on a full disk are kept in memory until there is room.

    Args:
        path: The file, created by the first write.

    Attributes:
        pending: Encoded lines that are not on the disk yet, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending: list[bytes] = []

    def mark(self) -> dict[str, int]:
        """Flush the file to the disk. Returns its length and the CRC-32 of its content."""
        if not self.path.exists():
            return {"bytes": 0, "crc32": 0}
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
            content = file.read()
        return {"bytes": len(content), "crc32": zlib.crc32(content)}

    def has(self, mark: Mapping[str, int]) -> bool:
        """Whether the file still begins with what it held when it was marked."""
        content = self.path.read_bytes()[: mark["bytes"]] if self.path.exists() else b""
        return len(content) == mark["bytes"] and zlib.crc32(content) == mark["crc32"]

    def start(self, step: int, last_step: int) -> list[int]:
        """Drop the lines that a run which resumes after ``step`` writes again, and an incomplete last line.

        Args:
            step: The step.
            last_step: The run's last step, whose evaluation is always repeated.

        Returns:
            Numbers of the lines that are damaged and dropped. The file as it was is then in metrics.jsonl.damaged.

        Raises:
            OSError: If the disk is full.
        """
        damaged = []
        if self.path.exists():
            kept = []
            content = self.path.read_bytes()
            for number, text in enumerate(content.splitlines(keepends=True), start=1):
                if not text.endswith(b"\n"):  # incomplete, as the process was killed
                    break
                try:
                    line = json.loads(text)
                    line_step, split = int(line["step"]), line["split"]
                except (ValueError, LookupError, TypeError):
                    damaged.append(number)
                    continue
                if line_step > step or (line_step == last_step and split == "held_out"):
                    break
                if text not in self.pending:  # else it was written after the checkpoint in which it is pending
                    kept.append(text)
            if damaged:
                write_atomically(self.path.with_name(f"{self.path.name}.damaged"), content)
            write_atomically(self.path, b"".join(kept))
        self.write()
        return damaged

    def append(self, line: dict[str, Any]) -> None:
        """Write a line after the pending ones.

        Raises:
            OSError: If the disk is full. The line is pending.
        """
        self.pending.append(json.dumps(_without_nan(line)).encode() + b"\n")
        self.write()

    def write(self) -> None:
        """Write the pending lines, all or none.

        Raises:
            OSError: If the disk is full.
        """
        if not self.pending:
            return
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            rest = b"".join(self.pending)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
        self.pending.clear()


class Metrics:
    """Averages the values of ``log_every`` steps into one line of metrics.jsonl.

    The values of a step stay on the device, in one row of a ring buffer, and are read together once per line. Rows that
    are in no line yet, and lines that a full disk did not accept, are part of a checkpoint, so that a resumed run
    writes the same lines.

    Args:
        path: The file.
        criterion: Holds the values of the last step.
        steps: Steps of the run.
        log_every: Steps per line.
        device: Where the values are.
        main: Whether this rank writes.
        report: Called with each line.
        say: Prints a message.
    """

    def __init__(
        self,
        path: Path,
        criterion: MultiTaskLoss,
        steps: int,
        log_every: int,
        device: torch.device,
        main: bool,
        report: Callable[[dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self.file = MetricsFile(path)
        self.criterion = criterion
        self.steps = steps
        self.log_every = log_every
        self.device = device
        self.main = main
        self.report = report
        self.say = say
        self.rows = torch.zeros(log_every, 3 + 2 * len(criterion.tasks), device=device)
        self.filled = 0
        self.flops_per_step: float | None = None
        self._disk_is_full = False
        self._saved = {"bytes": 0, "crc32": 0}
        self._mark = (time.perf_counter(), 0, 0)
        self._loading = 0.0

    def start(self, step: int, samples: int) -> None:
        """Start after a step, and drop the lines of later steps."""
        if self.main:
            if not self.file.has(self._saved):
                self.say(
                    f"Lines of {self.file.path} from before step {step} were lost or changed since the checkpoint. The "
                    "run resumes, and its record has a gap."
                )
            damaged = self.file.start(step, self.steps)
            if damaged:
                self.say(
                    f"Lines {damaged} of {self.file.path} are damaged and left out; the file as it was is in "
                    f"{self.file.path.name}.damaged."
                )
        self._mark = (time.perf_counter(), samples, step)

    def finish(self) -> None:
        """Write the pending lines.

        Raises:
            OSError: If the disk is full.
        """
        if self.main:
            self.file.write()

    def step(self, step: int, samples: int, gradient_norm: Tensor, lr: float, loading: float) -> None:
        """Add the values of one step.

        Args:
            step: Number of the step, from 1.
            samples: Samples so far on all ranks.
            gradient_norm: Norm of the gradient before clipping, NaN if it was not computed.
            lr: Learning rate of the step.
            loading: Seconds that the step waited for its batches.
        """
        last = self.criterion.last
        scalars = torch.stack([last.total, gradient_norm, last.entropy])
        self.rows[self.filled] = torch.where(
            last.finite, torch.cat([scalars, last.risk_vector, last.weight_vector]), torch.nan
        )
        self.filled += 1
        self._loading += loading
        if self.filled >= self.log_every or step == self.steps:
            self._write(step, samples, lr)

    def evaluation(self, step: int, evaluation: Evaluation, split: str, best: bool) -> None:
        """Write the risks and scores of an evaluation."""
        if self.main:
            self._record({"step": step, "split": split, "best": best, **evaluation.__dict__})

    def state_dict(self) -> dict[str, Any]:
        """The rows that are in no line yet, the lines that are not on the disk, and what is there."""
        return {
            "rows": self.rows[: self.filled].cpu(),
            "lines": [line.decode() for line in self.file.pending],
            "file": self.file.mark() if self.main else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore rows and lines."""
        if self.main:
            self.file.pending = [line.encode() for line in state["lines"]]
            self._saved = state["file"]
        self.filled = len(state["rows"])  # more than log_every, if that is smaller than it was
        self.rows = torch.cat([state["rows"].to(self.rows.device), self.rows])

    def _write(self, step: int, samples: int, lr: float) -> None:
        self.criterion.check_finite()
        means = self.rows[: self.filled].nanmean(0).tolist()
        self.filled = 0
        seconds, new_samples, new_steps = self._since_last_line(samples, step)
        loading, self._loading = self._loading, 0.0
        if not self.main:
            return
        tasks = self.criterion.tasks
        loss, gradient_norm, entropy, *vectors = means
        risks = dict(zip(tasks, vectors[: len(tasks)], strict=True))
        weighted_tasks = self.criterion.weighted_tasks  # the others have the weights of the configuration
        weights = dict(zip(weighted_tasks, vectors[len(tasks) :], strict=False))
        mean_risks = torch.tensor(vectors[: len(weighted_tasks)], device=self.device)
        compared_risks = self.criterion.risk.compared(TaskLosses(mean_risks, torch.ones_like(mean_risks)))
        compared = dict(zip(weighted_tasks, compared_risks.tolist(), strict=True))
        present = [task for task in weighted_tasks if not math.isnan(risks[task])]
        line = {
            "step": step,
            "split": "train",
            "samples": samples,
            "loss": loss,
            "gradient_norm": gradient_norm,
            "lr": lr,
            "risks": risks,
            "weights": weights,
            **({} if self.criterion.risk.reference is None else {"excess": compared}),
            "worst_task": max(present, key=lambda task: compared[task], default=None),
            "entropy": entropy,
            "effective_tasks": math.exp(entropy),
            "skipped": int(self.criterion.skipped),
            "samples_per_second": new_samples / seconds,
            "data_loading_share": min(1.0, loading / seconds),
            "peak_memory_gib": peak_memory(self.device) / 2**30,
        }
        peak = peak_flops(self.device)
        if peak is not None and self.flops_per_step is not None:
            line["mfu"] = self.flops_per_step * new_steps / (seconds * peak)
        self._record(line)

    def _since_last_line(self, samples: int, step: int) -> tuple[float, int, int]:
        now, before = time.perf_counter(), self._mark
        self._mark = (now, samples, step)
        return now - before[0], samples - before[1], step - before[2]

    def _record(self, line: dict[str, Any]) -> None:
        failure: OSError | None = None
        try:
            self.file.append(line)
        except OSError as error:
            failure = error
        if failure is not None and not self._disk_is_full:
            self.say(
                f"The metrics of step {line['step']} could not be written to {self.file.path} ({failure}). They are "
                "kept in memory and in the checkpoints. Training continues; make room, or the run ends with an error."
            )
        self._disk_is_full = failure is not None
        self.report(line)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors occupied on a GPU, or that this process occupied in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def peak_flops(device: torch.device) -> float | None:
    """Dense 16-bit operations per second of a GPU, of which MFU is a share. None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in _PEAK_FLOPS.items() if part in name), None)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a task that was absent from all steps of a line has the risk null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
