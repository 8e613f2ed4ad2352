"""A small generated GLUE in the official file layouts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from taskrobust._io.atomic import replacing
from taskrobust._io.locks import locked
from taskrobust.nlp.glue.tasks import GLUE, GlueTask
from taskrobust.synthetic.text.glue import Example
from taskrobust.synthetic.text.lexicon import TOPICS

_MATCHED: Final = 6
"""Number of topics in MNLI's training and matched splits. The mismatched splits use the other topics."""


def write_miniature_glue(folder: Path, seed: int = 0, train: int = 2000, dev: int = 400, test: int = 200) -> None:
    """Write the files of all tasks that have a generator. A folder that exists already is left unchanged.

    No example of a task is in two of its splits. MNLI's mismatched splits use topics that its other splits lack.

    Args:
        folder: The folder to create.
        seed: Seed of the examples.
        train: Number of examples in each training split.
        dev: Number of examples in each dev split.
        test: Number of examples in each test split.
    """
    with locked(folder):
        if folder.exists():
            return
        with replacing(folder) as unfinished:
            for task in GLUE.values():
                counts = {"train": train} | dict.fromkeys(task.dev.values(), dev)
                _write(unfinished / task.folder, task, counts | dict.fromkeys(task.test.values(), test), seed)


def _write(folder: Path, task: GlueTask, counts: dict[str, int], seed: int) -> None:
    """Writes the given number of examples for each split, without an example in two splits."""
    if task.generator is None:
        return
    folder.mkdir(parents=True)
    seen: set[tuple[str, ...]] = set()
    for split, number in counts.items():
        topics = list(TOPICS.values())
        if task.has_mismatched:
            topics = topics[_MATCHED:] if split.endswith("mismatched") else topics[:_MATCHED]
        examples: list[Example] = []
        for texts, label in task.generator(seed, split, topics):
            if len(examples) == number:
                break
            if texts not in seen:
                seen.add(texts)
                examples.append((texts, label))
        lines = _lines(task, examples, has_labels=split not in task.test.values())
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def _lines(task: GlueTask, examples: list[Example], has_labels: bool) -> Iterator[str]:
    columns = task.columns or (*task.texts, task.label)
    if not has_labels:
        columns = task.test_columns or ("index", *task.texts)
    if task.has_header or not has_labels:
        yield "\t".join(columns)
    for number, (texts, label) in enumerate(examples):
        row = dict.fromkeys(columns, "-") | {columns[0]: str(number)}
        row |= dict(zip(task.texts, texts, strict=True)) | ({task.label: label} if has_labels else {})
        yield "\t".join(row.values())
