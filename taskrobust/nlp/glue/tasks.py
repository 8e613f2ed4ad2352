"""The GLUE tasks, one row a task."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class GlueTask:
    """What is particular to one task.

    Args:
        name: Its name in results and as configuration of the data set on the hub.
        folder: Its official folder, and name of its file on the leaderboard.
        texts: The columns of one or two sentences.
        label: The column of the label.
        labels: How files and leaderboard spell the classes, by their numbers. None for a score from 0 to 5.
        metrics: What it is scored by, the headline first.
        hub_texts: The columns of the sentences on the hub, where they are called otherwise.
        columns: The columns of the files that have no header: those with labels.
        has_mismatched: Whether there is a second dev and test set, of other genres.
        has_broken_rows: Whether the official files for training and dev have a few rows that a line break inside a
            text has cut in two.
    """

    name: str
    folder: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...] = ("accuracy",)
    hub_texts: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    has_mismatched: bool = False
    has_broken_rows: bool = False

    @property
    def outputs(self) -> int:
        """Outputs of the model: one for each class, or one in all."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def dev(self) -> dict[str, str]:
        """The dev splits by the names of their results, the first one being that of the task."""
        if self.has_mismatched:
            return {self.name: "dev_matched", f"{self.name}-mm": "dev_mismatched"}
        return {self.name: "dev"}

    @property
    def test(self) -> dict[str, str]:
        """The test splits by the names of their files on the leaderboard."""
        if self.has_mismatched:
            return {f"{self.folder}-m": "test_matched", f"{self.folder}-mm": "test_mismatched"}
        return {self.folder: "test"}


_ENTAILMENT: Final = ("entailment", "not_entailment")
_PAIR: Final = ("sentence1", "sentence2")
_YES_OR_NO: Final = ("0", "1")

_ROWS: Final = (
    GlueTask(
        "cola",
        "CoLA",
        ("sentence",),
        "label",
        _YES_OR_NO,
        ("matthews",),
        columns=("source", "label", "mark", "sentence"),
    ),
    GlueTask("sst2", "SST-2", ("sentence",), "label", _YES_OR_NO),
    GlueTask("mrpc", "MRPC", ("#1 String", "#2 String"), "Quality", _YES_OR_NO, ("f1", "accuracy"), hub_texts=_PAIR),
    GlueTask(
        "qqp",
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        _YES_OR_NO,
        ("f1", "accuracy"),
        has_broken_rows=True,
    ),
    GlueTask("stsb", "STS-B", _PAIR, "score", None, ("spearman", "pearson")),
    GlueTask(
        "mnli",
        "MNLI",
        _PAIR,
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        hub_texts=("premise", "hypothesis"),
        has_mismatched=True,
    ),
    GlueTask("qnli", "QNLI", ("question", "sentence"), "label", _ENTAILMENT),
    GlueTask("rte", "RTE", _PAIR, "label", _ENTAILMENT),
)

GLUE: Final = {task.name: task for task in _ROWS}
"""The tasks by name."""

TABLE_1: Final = ("mnli", "mnli-mm", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
"""Names of results in the order of the paper's Table 1."""


def glue_tasks(names: list[str]) -> list[GlueTask]:
    """The tasks of these names, each once; ``all`` stands for all eight.

    Raises:
        ValueError: If there is no task of a name.
    """
    wanted = list(GLUE) if names == ["all"] else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in GLUE]
    if unknown or not wanted:
        raise ValueError(f"Expected GLUE tasks among {list(GLUE)}, or all, got {unknown or wanted}.")
    return [GLUE[name] for name in wanted]
