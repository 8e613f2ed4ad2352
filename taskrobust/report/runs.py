import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

Line = dict[str, Any]

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says about its run.

    Args:
        label: What tables and plots call it.
        training: The lines of metrics.jsonl on training steps.
        held_out: The lines on held-out evaluations.
    """

    label: str
    training: list[Line]
    held_out: list[Line]

    @property
    def weighted_tasks(self) -> list[str]:
        """The tasks that the weighting weighs, so not those of a fixed weight; none before the first line."""
        return list(self.training[0]["weights"]) if self.training else []


def read_run(path: Path, label: str) -> RunRecord:
    """Read a run folder.

    Args:
        path: The run folder.
        label: What tables and plots call the run.

    Raises:
        ValueError: If the folder holds no evaluation yet, or metrics.jsonl a line that is not JSON.
    """
    record = read_unfinished(path, label)
    if not record.held_out:
        raise ValueError(f"Expected a run that was evaluated at least once, got {path}.")
    return record


def read_unfinished(path: Path, label: str) -> RunRecord:
    """Read a run folder, of a run that may not have been evaluated yet.

    Args:
        path: The run folder.
        label: What tables and plots call the run.

    Raises:
        ValueError: If there is no metrics.jsonl, or a line of it is not JSON.
    """
    metrics = path / METRICS
    if not metrics.exists():
        raise ValueError(f"Expected a run folder with metrics.jsonl, got {path}.")
    lines = _read_lines(metrics)
    training = [line for line in lines if line["split"] == "train"]
    held_out = [line for line in lines if line["split"] == "held_out"]
    return RunRecord(label, training, held_out)


def mean_run(runs: Sequence[RunRecord]) -> RunRecord:
    """The mean of runs that differ in their seed, on the steps that all of them logged.

    Args:
        runs: The runs, of the same tasks.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    by_step = [{line["step"]: line for line in run.training} for run in runs]
    steps = [step for step in by_step[0] if all(step in lines for lines in by_step)]
    last = _mean_line([run.held_out[-1] for run in runs], ("risks",))
    candidates = [task for task in first.weighted_tasks or last["risks"] if task in last["risks"]]
    last["worst_task"] = max(
        candidates, key=lambda task: math.inf if last["risks"][task] is None else last["risks"][task]
    )
    training = [
        _mean_line([lines[step] for lines in by_step], ("risks", "weights", "effective_tasks")) for step in steps
    ]
    return RunRecord(first.label, training, [last])


def _read_lines(metrics: Path) -> list[Line]:
    """All whole lines: the last one of a run that goes on, or that was cut off, may be torn."""
    lines = []
    for number, text in enumerate(metrics.read_text().splitlines(keepends=True), start=1):
        if not text.endswith("\n"):
            break
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"Expected JSON in line {number} of {metrics}, got {text[:40]!r}.") from error
    return lines


def _mean_line(lines: Sequence[Line], keys: Sequence[str]) -> Line:
    mean: Line = {"step": lines[0]["step"]}
    for key in keys:
        values = [line[key] for line in lines]
        if isinstance(values[0], dict):
            mean[key] = {name: _mean([value.get(name) for value in values]) for name in values[0]}
        else:
            mean[key] = _mean(values)
    return mean


def _mean(values: Sequence[float | None]) -> float | None:
    """Of the values that there are; a task may be absent from the steps of a line."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
