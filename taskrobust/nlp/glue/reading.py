"""Where the sentences and labels of a GLUE task come from: folders of the official TSV files, or `datasets`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from taskrobust.nlp.glue.tasks import GlueTask

HIGHEST_SCORE: Final = 5.0
"""The scores of STS-B go from 0 to 5."""

_MOST_BROKEN: Final = 0.001  # of the lines

Labels = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """The N examples of a split.

    Args:
        texts: One or two columns of N sentences.
        labels: Class numbers or scores, [N]; None in a test split, where they are secret.
        ids: What the leaderboard calls the examples of a test split, [N]; empty in other splits.
        left_out: Which lines of the file are not among the examples, in a sentence; empty if all are.
    """

    texts: tuple[list[str], ...]
    labels: Labels | None
    ids: list[str]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.texts[0])


def read_split(source: str, task: GlueTask, split: str) -> Examples:
    """Reads a split of a task.

    Args:
        source: A folder with a folder of TSV files for each task, as the GLUE site and the leaderboard have them, or
            the name or folder of a data set that ``datasets`` loads, such as "nyu-mll/glue".
        task: The task.
        split: ``train``, or one of ``task.dev`` and ``task.test``.

    Raises:
        ValueError: If there is no such file or data set, or it is not what it should be; the message names file, line
            and column.
    """
    folder, has_labels = Path(source).expanduser(), split not in task.test.values()
    if any(folder.glob("*/*.tsv")):
        return _read_tsv(folder / task.folder / f"{split}.tsv", task, has_labels)
    return _read_dataset(source, task, split, has_labels)


def _read_tsv(path: Path, task: GlueTask, has_labels: bool) -> Examples:
    lines = _lines(path)
    header = task.columns if has_labels and task.columns else next(lines, (1, []))[1]
    wanted = [*task.texts, *([task.label] if has_labels else [])]
    missing = [column for column in wanted if column not in header]
    if missing:
        raise ValueError(
            f"Expected the columns {wanted} in line 1 of {path}, got {list(header)} without {missing}. The files are "
            "those of the GLUE site, separated by tabs."
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
    """The numbers and fields of the lines. A quotation mark is a character as any other in these files."""
    if not path.is_file():
        raise ValueError(
            f"Expected the file {path}, there is none. Give --glue the folder that holds the folders of the tasks, and "
            "--tasks those that are there."
        )
    number = 0
    with path.open(encoding="utf-8-sig", newline="\n") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                yield number, line.rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise ValueError(f"Expected UTF-8 text, {path} holds other bytes after line {number}: {error}") from error


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
            f"{name!r} is no folder of GLUE's TSV files here, and as a data set with the configuration {task.name!r} "
            f"and the split {hub_split!r} it could not be loaded: {error}. Check the spelling and the network."
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
