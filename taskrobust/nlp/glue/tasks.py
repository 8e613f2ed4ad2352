"""The GLUE tasks. To add a task, add a row to ``_ROWS``."""

from dataclasses import dataclass
from typing import Final

from taskrobust.synthetic.text import glue
from taskrobust.synthetic.text.glue import Generator


@dataclass(frozen=True, kw_only=True)
class GlueTask:
    """Everything that is specific to one task.

    Args:
        name: Name in results, and name of the configuration on the hub.
        folder: Official spelling of the name: that of the folder and of the leaderboard's file.
        texts: Columns of the one or two sentences.
        label: Column of the label.
        labels: Spelling of the classes in files and on the leaderboard, by class number. None for a score from 0 to 5.
        metrics: Metrics in ``scores.METRICS``, the headline metric first.
        hub_texts: Columns of the sentences on the hub. Empty if they have the same names.
        columns: Columns of the official files with labels. Empty for ``texts`` and ``label``.
        test_columns: Columns of the official test files, which have a header. Empty for an index and ``texts``.
        has_header: Whether the files with labels start with a line of column names.
        has_mismatched: Whether there is a second dev and test set, from other genres.
        has_broken_rows: Whether line breaks inside texts split a few rows of the official training and dev files.
        generator: Generates the examples of the miniature GLUE. None excludes the task from it.
    """

    name: str
    folder: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...] = ("accuracy",)
    hub_texts: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    test_columns: tuple[str, ...] = ()
    has_header: bool = True
    has_mismatched: bool = False
    has_broken_rows: bool = False
    generator: Generator | None = None

    @property
    def outputs(self) -> int:
        """Number of outputs of the model: one per class, or one for a score."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def dev(self) -> dict[str, str]:
        """Dev splits by the names of their results. The first result is that of the task."""
        if self.has_mismatched:
            return {self.name: "dev_matched", f"{self.name}-mm": "dev_mismatched"}
        return {self.name: "dev"}

    @property
    def test(self) -> dict[str, str]:
        """Test splits by the names of their files on the leaderboard."""
        if self.has_mismatched:
            return {f"{self.folder}-m": "test_matched", f"{self.folder}-mm": "test_mismatched"}
        return {self.folder: "test"}


_ENTAILMENT: Final = ("entailment", "not_entailment")
_PAIR: Final = ("sentence1", "sentence2")
_YES_OR_NO: Final = ("0", "1")
_STSB_COLUMNS: Final = ("index", "genre", "filename", "year", "old_index", "source1", "source2", *_PAIR)
_MNLI_COLUMNS: Final = (
    *("index", "promptID", "pairID", "genre"),
    *("sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"),
    *_PAIR,
)

_ROWS: Final = (
    GlueTask(
        name="cola",
        folder="CoLA",
        texts=("sentence",),
        label="label",
        labels=_YES_OR_NO,
        metrics=("matthews",),
        columns=("source", "label", "mark", "sentence"),
        has_header=False,
        generator=glue.cola,
    ),
    GlueTask(
        name="sst2",
        folder="SST-2",
        texts=("sentence",),
        label="label",
        labels=_YES_OR_NO,
        generator=glue.sst2,
    ),
    GlueTask(
        name="mrpc",
        folder="MRPC",
        texts=("#1 String", "#2 String"),
        label="Quality",
        labels=_YES_OR_NO,
        metrics=("f1", "accuracy"),
        hub_texts=_PAIR,
        columns=("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        test_columns=("index", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        generator=glue.mrpc,
    ),
    GlueTask(
        name="qqp",
        folder="QQP",
        texts=("question1", "question2"),
        label="is_duplicate",
        labels=_YES_OR_NO,
        metrics=("f1", "accuracy"),
        columns=("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        test_columns=("id", "question1", "question2"),
        has_broken_rows=True,
        generator=glue.qqp,
    ),
    GlueTask(
        name="stsb",
        folder="STS-B",
        texts=_PAIR,
        label="score",
        labels=None,
        metrics=("spearman", "pearson"),
        columns=(*_STSB_COLUMNS, "score"),
        test_columns=_STSB_COLUMNS,
        generator=glue.stsb,
    ),
    GlueTask(
        name="mnli",
        folder="MNLI",
        texts=_PAIR,
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        hub_texts=("premise", "hypothesis"),
        columns=(*_MNLI_COLUMNS, "label1", "gold_label"),
        test_columns=_MNLI_COLUMNS,
        has_mismatched=True,
        generator=glue.mnli,
    ),
    GlueTask(
        name="qnli",
        folder="QNLI",
        texts=("question", "sentence"),
        label="label",
        labels=_ENTAILMENT,
        columns=("index", "question", "sentence", "label"),
        generator=glue.qnli,
    ),
    GlueTask(
        name="rte",
        folder="RTE",
        texts=_PAIR,
        label="label",
        labels=_ENTAILMENT,
        columns=("index", *_PAIR, "label"),
        generator=glue.rte,
    ),
)

GLUE: Final = {task.name: task for task in _ROWS}
"""The tasks by name."""

TABLE_1: Final = ("mnli", "mnli-mm", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
"""Names of results in the order of the paper's Table 1."""


def glue_tasks(names: list[str], generated: bool = False) -> list[GlueTask]:
    """The tasks with the given names, without repetitions.

    Args:
        names: Names of tasks, or ``["all"]``.
        generated: Whether ``all`` is restricted to the tasks of the miniature, those with a generator.

    Raises:
        ValueError: If a name is unknown, or there is none.
    """
    every = [name for name, task in GLUE.items() if task.generator is not None or not generated]
    wanted = every if names == ["all"] else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in GLUE]
    if unknown or not wanted:
        raise ValueError(f"Expected GLUE tasks among {list(GLUE)}, or all, got {unknown or wanted}.")
    return [GLUE[name] for name in wanted]
