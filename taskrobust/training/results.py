"""The files that tables are made of: scores of fine-tuned models, and the cost of a training step."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from taskrobust._io.atomic import write_atomically

RESULTS: Final = "results.json"
COST: Final = "cost.json"

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A score of a fine-tuned model.

    Args:
        task: Name of the downstream task.
        title: What tables call the task, such as SST-2.
        place: Place of the task among the rows of a table, from 0.
        counted: Whether means and worst cases count the task. They do not count MNLI's mismatched genres.
        metric: Name of the score that tables show.
        value: That score as a fraction of one; larger is better.
        metrics: All scores by name.
        split: Split of the data that the model was scored on, such as dev or test.
        data: Name of the data, such as nyuv2 at 224 px.
        model: The model that was scored: the ``best`` one on held-out data, or the ``last``.
        step: Step of that model.
        seed: Seed of the fine-tuning.
        pretrained: The pre-trained model.
    """

    task: str
    title: str
    place: int
    counted: bool = True
    metric: str
    value: float
    metrics: dict[str, float]
    split: str
    data: str
    model: Literal["best", "last"]
    step: int
    seed: int
    pretrained: str


@dataclass(frozen=True)
class StepCost:
    """Cost of a training step without data loading, as ``taskrobust step-cost`` measures it.

    Args:
        flops_per_step: Floating-point operations of matrix products, convolutions and attention, forward and backward.
        seconds_per_step: Median wall-clock time.
        batch_size: Samples per step.
        device: Device and precision.
    """

    flops_per_step: float
    seconds_per_step: float
    batch_size: int
    device: str


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """Write results.json atomically. A fine-tuning with this file is finished."""
    _write(folder / RESULTS, [asdict(result) for result in results])


def read_results(folder: Path) -> list[Result]:
    """Read results.json.

    Raises:
        ValueError: If the file is not JSON, or a result has other fields.
    """
    path = folder / RESULTS
    return [_record(Result, row, f"result {number} of {path}") for number, row in enumerate(_read(path))]


def write_cost(folder: Path, cost: StepCost) -> None:
    """Write cost.json atomically."""
    _write(folder / COST, asdict(cost))


def read_cost(folder: Path) -> StepCost:
    """Read cost.json.

    Raises:
        ValueError: If the file is not JSON, or has other fields.
    """
    return _record(StepCost, _read(folder / COST), str(folder / COST))


def _write(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def _read(path: Path) -> Any:
    try:
        return _printable(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected {path} to be JSON, got an error: {error}.") from error


def _printable(value: Any) -> Any:
    """The same without control characters in its texts, which a terminal would obey."""
    if isinstance(value, str):
        return "".join(character for character in value if character.isprintable())
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def _record(kind: type[_T], row: dict[str, Any], where: str) -> _T:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if set(row) != names:
        raise ValueError(f"Expected the fields {sorted(names)} in {where}, got {sorted(row)}.")
    return kind(**row)
