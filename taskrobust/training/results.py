"""The files that tables are made of: scores of fine-tuned models, and the cost of a training step."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from taskrobust._io.atomic import write_atomically
from taskrobust._io.damage import damage_named

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
    rows = _read(path)
    if not isinstance(rows, list):
        raise ValueError(f"Expected a list of results in {path}, got {type(rows).__name__}.")
    return [_record(Result, row, f"result {number} of {path}") for number, row in enumerate(rows)]


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
    with damage_named(path, "JSON"):
        return _printable(json.loads(path.read_text()))


def _printable(value: Any) -> Any:
    """The same without control characters in its texts, which a terminal would obey."""
    if isinstance(value, str):
        return "".join(character for character in value if character.isprintable())
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def _record(kind: type[_T], row: Any, where: str) -> _T:
    types = get_type_hints(kind)
    if not isinstance(row, dict) or set(row) != set(types):
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"Expected the fields {sorted(types)} in {where}, got {got}.")
    for name, value in row.items():
        if not _is_of(value, types[name]):
            raise ValueError(f"Expected another {name} in {where}, got {value!r}.")
    return kind(**row)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value from JSON has the type of a field."""
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is_of(item, get_args(kind)[1]) for item in value.values())
    if get_origin(kind) is Literal:
        return value in get_args(kind) if isinstance(value, str) else False
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
