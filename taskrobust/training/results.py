"""What came of a fine-tuning: the file that tables are made of."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from taskrobust._io.atomic import write_atomically

RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A score of a fine-tuned model.

    Args:
        task: Name of the downstream task.
        metric: Name of the score that tables show.
        value: That score, larger is better, not in percent.
        metrics: All scores by name.
        split: The part of the data that it was measured on, such as dev or test.
        data: The data, such as nyuv2 at 224 px.
        model: Whether it is of the ``best`` model on held-out data or of the ``last``.
        step: Step of that model.
        seed: Seed of the fine-tuning.
        pretrained: What was fine-tuned.
    """

    task: str
    metric: str
    value: float
    metrics: dict[str, float]
    split: str
    data: str
    model: Literal["best", "last"]
    step: int
    seed: int
    pretrained: str


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """Write results.json, whole or not at all: its presence says that the run is finished."""
    write_atomically(folder / RESULTS, json.dumps([asdict(result) for result in results], indent=2) + "\n")


def read_results(folder: Path) -> list[Result]:
    """Read results.json.

    Raises:
        ValueError: If it is not what ``write_results`` writes.
    """
    path = folder / RESULTS
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected {path} to be JSON, got an error: {error}.") from error
    names = {field.name for field in fields(Result)}
    for number, row in enumerate(rows):
        if set(row) != names:
            raise ValueError(f"Expected the fields {sorted(names)} in result {number} of {path}, got {sorted(row)}.")
    return [Result(**row) for row in rows]
