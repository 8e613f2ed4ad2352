import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


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


def read_run(path: Path, label: str) -> RunRecord:
    """Read a run folder.

    Args:
        path: The run folder.
        label: What tables and plots call the run.

    Raises:
        ValueError: If the folder holds no evaluation yet.
    """
    metrics = path / "metrics.jsonl"
    if not metrics.exists():
        raise ValueError(f"Expected a run folder with metrics.jsonl, got {path}.")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    training = [line for line in lines if line["split"] == "train"]
    held_out = [line for line in lines if line["split"] == "heldout"]
    if not held_out:
        raise ValueError(f"Expected a run that was evaluated at least once, got {path}.")
    return RunRecord(label, training, held_out)
