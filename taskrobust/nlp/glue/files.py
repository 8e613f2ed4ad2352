"""Reads examples from the official TSV files or `datasets`, and writes predictions for the leaderboard."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from taskrobust._io.atomic import write_atomically
from taskrobust.nlp.glue.tasks import GlueTask

HIGHEST_SCORE: Final = 5.0
"""STS-B's scores range from 0 to 5."""

_MOST_BROKEN: Final = 0.001
"""Largest fraction of lines with too few columns that is left out instead of refused."""

Labels = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """The N examples of a split.

    Args:
        texts: One or two columns of N sentences.
        labels: Class numbers or scores, [N]. None in a test split, whose labels are secret.
        ids: Names of the examples on the leaderboard, [N]. Empty except in a test split.
        left_out: A sentence about lines of the file that were left out. Empty if there are none.
    """

    texts: tuple[list[str], ...]
    labels: Labels | None
    ids: list[str]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.texts[0])

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else "labels"
        return f"Examples({len(self)} examples, {len(self.texts)} text columns, {labels})"


def read_split(source: str, task: GlueTask, split: str) -> Examples:
    """Read a split of a task.

    Args:
        source: A folder with one folder of official TSV files per task, or the name or folder of a data set that
            ``datasets`` loads, such as "nyu-mll/glue".
        task: The task.
        split: ``train``, or one of the values of ``task.dev`` and ``task.test``.

    Raises:
        ValueError: If there is no such file or data set, or it has the wrong content. The message names file, line and
            column.
    """
    folder, has_labels = Path(source).expanduser(), split not in task.test.values()
    if any(folder.glob("*/*.tsv")):
        return _read_tsv(folder / task.folder / f"{split}.tsv", task, has_labels)
    return _read_dataset(source, task, split, has_labels)


def _read_tsv(path: Path, task: GlueTask, has_labels: bool) -> Examples:
    lines = _lines(path)
    header = task.columns if has_labels and not task.has_header else next(lines, (1, []))[1]
    wanted = [*task.texts, *([task.label] if has_labels else [])]
    missing = [column for column in wanted if column not in header]
    if missing:
        raise ValueError(
            f"Expected the columns {wanted} in line 1 of {path}, got {list(header)} without {missing}. Use the "
            "tab-separated files of the GLUE site."
        )
    texts: tuple[list[str], ...] = tuple([] for _ in task.texts)
    places = [header.index(column) for column in task.texts]
    label = header.index(task.label) if has_labels else 0
    labels: list[float] = []
    ids: list[str] = []
    short: list[int] = []
    for number, row in lines:
        if task.has_broken_rows and has_labels and len(row) < len(header):
            short.append(number)
            continue
        if len(row) != len(header):
            raise ValueError(
                f"Expected {len(header)} columns in line {number} of {path}, got {len(row)}: {list(header)}."
            )
        for sentences, place in zip(texts, places, strict=True):
            sentences.append(row[place])
        if has_labels:
            labels.append(_label(row[label], task, f"column {task.label!r} of line {number} of {path}"))
        else:
            ids.append(row[0])
    left_out = f"{len(short)} lines of {path} have too few columns, the first is line {short[0]}" if short else ""
    if len(short) > _MOST_BROKEN * (len(texts[0]) + len(short)):
        raise ValueError(
            f"Expected {len(header)} columns in at least {1 - _MOST_BROKEN:.1%} of the lines, as in the official file. "
            f"{left_out}. Download the file again."
        )
    if not texts[0]:
        raise ValueError(f"Expected rows of {task.name} in {path}, got none.")
    return Examples(texts, _as_array(labels, task) if has_labels else None, ids, left_out and f"{left_out}: left out.")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line. Quotation marks have no special meaning in these files."""
    if not path.is_file():
        raise ValueError(
            f"Expected the file {path}, got no such file. Point --glue to the folder that holds the folders of the "
            "tasks, and list in --tasks the tasks that are there."
        )
    number = 0
    with path.open(encoding="utf-8-sig", newline="\n") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                yield number, line.rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise ValueError(f"Expected UTF-8 text in {path}, got other bytes after line {number}: {error}") from error


def _label(text: str, task: GlueTask, place: str) -> float:
    if task.labels is not None:
        if text not in task.labels:
            raise ValueError(f"Expected a label among {list(task.labels)} in {place}, got {text!r}.")
        return task.labels.index(text)
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= HIGHEST_SCORE:
        raise ValueError(f"Expected a score from 0 to {HIGHEST_SCORE:g} in {place}, got {text!r}.")
    return score


def _as_array(labels: Any, task: GlueTask) -> Labels:
    return np.array(labels, np.float32) if task.labels is None else np.array(labels, np.int64)


def _read_dataset(name: str, task: GlueTask, split: str, has_labels: bool) -> Examples:
    from datasets import load_dataset  # takes a second to import, and most sources are folders

    hub_split = split.replace("dev", "validation")
    try:
        rows = load_dataset(name, task.name, split=hub_split)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected a folder of GLUE's TSV files or a data set with the configuration {task.name!r} and the split "
            f"{hub_split!r}, got {name!r}, which could not be loaded: {error}. Check the spelling and the network."
        ) from error
    place = f"the split {hub_split!r} of {task.name!r} in {name!r}"
    columns = task.hub_texts or task.texts
    wanted = [*columns, *(["label"] if has_labels else ["idx"])]
    missing = [column for column in wanted if column not in rows.column_names]
    if missing:
        raise ValueError(f"Expected the columns {wanted} in {place}, got {rows.column_names} without {missing}.")
    if len(rows) == 0:
        raise ValueError(f"Expected rows in {place}, got none.")
    texts = tuple(list(rows[column]) for column in columns)
    if not has_labels:
        return Examples(texts, None, [str(index) for index in rows["idx"]])
    labels = _as_array(list(rows["label"]), task)
    highest = HIGHEST_SCORE if task.labels is None else len(task.labels) - 1
    for row in np.flatnonzero(~((labels >= 0) & (labels <= highest)))[:1]:
        raise ValueError(
            f"Expected a label from 0 to {highest:g} in column 'label' of row {row} of {place}, got {labels[row]}."
        )
    return Examples(texts, labels, [])


def write_predictions(path: Path, task: GlueTask, ids: list[str], predictions: NDArray[Any]) -> None:
    """Write one file of a submission: a header, then index and prediction of each example.

    Args:
        path: The file. The leaderboard expects the names in ``task.test``.
        task: The task.
        ids: Names of the examples, [N].
        predictions: Class numbers, or scores, which are clipped to the range from 0 to 5, [N].
    """
    if task.labels is None:
        texts = [f"{score:.3f}" for score in np.clip(predictions, 0, HIGHEST_SCORE)]
    else:
        texts = [task.labels[int(number)] for number in predictions]
    lines = ["index\tprediction", *(f"{index}\t{text}" for index, text in zip(ids, texts, strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n")
