"""What a step of pre-training costs."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Final

from taskrobust.report.runs import RunRecord

COST: Final = "cost.json"


@dataclass(frozen=True)
class MeasuredCost:
    """A step as ``taskrobust step-cost`` measured it, without loading data.

    Args:
        flops_per_step: Floating point operations.
        seconds_per_step: Wall-clock time.
        batch_size: Samples of the step.
        device: What it ran on.
    """

    flops_per_step: float
    seconds_per_step: float
    batch_size: int
    device: str


@dataclass(frozen=True)
class Speed:
    """How fast a run went, by its metrics.jsonl.

    Args:
        samples_per_second: Median over the lines.
        seconds_per_step: Samples of a step over that.
    """

    samples_per_second: float
    seconds_per_step: float


def speed_of(run: RunRecord) -> Speed | None:
    """How fast a run went; None before its first line."""
    if not run.training:
        return None
    samples_per_second = median(line["samples_per_second"] for line in run.training)
    last = run.training[-1]
    return Speed(samples_per_second, last["samples"] / last["step"] / samples_per_second)


def read_cost(path: Path) -> MeasuredCost:
    """Read a cost.json.

    Raises:
        ValueError: If it has other fields.
    """
    row = json.loads(path.read_text())
    names = {field.name for field in fields(MeasuredCost)}
    if set(row) != names:
        raise ValueError(f"Expected the fields {sorted(names)} in {path}, got {sorted(row)}.")
    return MeasuredCost(**row)
