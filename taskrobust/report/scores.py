"""The downstream scores of fine-tuned models, by label, task and run."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from taskrobust.report.compared import Compared, compared
from taskrobust.report.comparison import SCORE, Run, Statistic
from taskrobust.report.settings import differing_settings
from taskrobust.report.sources import Source
from taskrobust.training.results import RESULTS, Result

MISMATCHED: Final = "mnli-mm"
GLUE_EIGHT: Final = ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")

NAMES: Final = {
    "mnli": "MNLI",
    MISMATCHED: "MNLI-mm",
    "qqp": "QQP",
    "qnli": "QNLI",
    "sst2": "SST-2",
    "cola": "CoLA",
    "stsb": "STS-B",
    "mrpc": "MRPC",
    "rte": "RTE",
    "classification": "Cls",
    "semseg": "Semseg",
    "depth": "Depth",
}
"""What the paper's Tables 1 and 2 call the downstream tasks, in their order."""


class Measured(NamedTuple):
    """A task and the data that it was measured on: a row of the table."""

    task: str
    data: str


class Protocol(NamedTuple):
    """How a score was measured. Scores of different protocols are not compared."""

    metric: str
    split: str
    model: str

    def __str__(self) -> str:
        return f"{self.metric} on {self.split}, {self.model} model"


def compare_scores(sources: Sequence[Source], baseline: str, statistic: Statistic) -> Compared | None:
    """Compare the downstream scores, in percent; None where there are none.

    Mean and worst are over all tasks but mismatched MNLI, which would count MNLI twice. A task that was measured on
    several data sets, or at several sizes, counts as several.

    Args:
        sources: All labels.
        baseline: The label that gains are over.
        statistic: Center of the runs of a task.

    Raises:
        ValueError: If a score is not a number, or a label has two scores of one task, data set, seed and pre-training.
    """
    found = [source for source in sources if source.results]
    if not found:
        return None
    protocols = _protocols(found)
    places = [*NAMES, *sorted({row.task for row in protocols} - NAMES.keys())]
    rows = _rows(sorted(protocols, key=lambda row: (places.index(row.task), row.data)))
    warnings = [f"{source.label} has no downstream results." for source in sources if not source.results]
    values = {}
    for source in found:
        scores = _scores(source, protocols, rows)
        if scores:
            values[source.label] = scores
        for row, protocol in sorted({(_measured(result), _protocol(result)) for _, result in source.results}):
            if rows[row] not in scores:
                warnings.append(f"{source.label} has {rows[row]} as {protocol}, but {protocols[row]} is compared.")
    counted = [name for row, name in rows.items() if row.task != MISMATCHED or ("mnli", row.data) not in rows]
    names = {name: NAMES.get(row.task, row.task) + name.removeprefix(row.task) for row, name in rows.items()}
    for row, name in rows.items():
        folders = [place for source in found for place, result in source.results if _measured(result) == row]
        warnings += [f"{names[name]} was not fine-tuned alike: {text}" for text in differing_settings(folders)]
    measured: dict[tuple[Protocol, str], list[str]] = {}
    for row, name in rows.items():
        measured.setdefault((protocols[row], row.data), []).append(names[name])
    note = "; ".join(f"{', '.join(of)}: {protocol}, {data}" for (protocol, data), of in measured.items())
    return compared(values, counted, baseline, SCORE, statistic, names, [f"{note}."], warnings)


def _rows(measured: Sequence[Measured]) -> dict[Measured, str]:
    """What each row is called: by its task, and by the data too where the task has several."""
    data = Counter(row.task for row in measured)
    return {row: row.task if data[row.task] == 1 else f"{row.task}, {row.data}" for row in measured}


def _protocols(sources: Sequence[Source]) -> dict[Measured, Protocol]:
    """Of each row the protocol that most labels have; on a tie that of the test split, then of the best model."""
    labels: dict[Measured, dict[Protocol, set[str]]] = {}
    for source in sources:
        for _, result in source.results:
            labels.setdefault(_measured(result), {}).setdefault(_protocol(result), set()).add(source.label)
    return {
        row: max(candidates, key=lambda p: (len(candidates[p]), p.split == "test", p.model == "best"))
        for row, candidates in labels.items()
    }


def _scores(
    source: Source, protocols: Mapping[Measured, Protocol], rows: Mapping[Measured, str]
) -> dict[str, dict[Run, float]]:
    scores: dict[str, dict[Run, float]] = {}
    places: dict[tuple[Measured, Run], tuple[Path, Result]] = {}
    for folder, result in source.results:
        row = _measured(result)
        if _protocol(result) != protocols[row]:
            continue
        run = (result.pretrained, result.seed)
        place, same = places.setdefault((row, run), (folder, result))
        if same != result:  # a file that sums up others says the same again
            raise ValueError(
                f"Expected one result of {rows[row]} with seed {result.seed} from {result.pretrained} under "
                f"{source.label!r}, got {same.value} in {place} and {result.value} in {folder}. "
                "Give each its own label: LABEL=FOLDER."
            )
        scores.setdefault(rows[row], {})[run] = 100 * _finite(result, folder)
    return {name: scores[name] for name in rows.values() if name in scores}


def _finite(result: Result, folder: Path) -> float:
    value: object = result.value
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(
            f"Expected a number as value of {result.task} in {folder / RESULTS}, got {value!r}. Fine-tune it again."
        )
    return value


def _protocol(result: Result) -> Protocol:
    return Protocol(result.metric, result.split, result.model)


def _measured(result: Result) -> Measured:
    return Measured(result.task, result.data)
