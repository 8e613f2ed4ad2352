"""The downstream scores of fine-tuned models, by label, task and run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from taskrobust.reporting.compared import Compared, compared
from taskrobust.reporting.comparison import SCORE, Run, Statistic
from taskrobust.reporting.sources import Source
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


class Protocol(NamedTuple):
    """How a score was measured. Scores of different protocols are not compared."""

    metric: str
    split: str
    model: str

    def __str__(self) -> str:
        return f"{self.metric} on {self.split}, {self.model} model"


def compare_scores(sources: Sequence[Source], baseline: str, statistic: Statistic) -> Compared | None:
    """Compare the downstream scores, in per cent; None where there are none.

    Mean and worst are over all tasks but mismatched MNLI, which would count MNLI twice.

    Args:
        sources: All labels.
        baseline: The label that gains are over.
        statistic: Centre of the runs of a task.

    Raises:
        ValueError: If a score is not a number, or a label has two scores of one task, seed and pre-training.
    """
    found = [source for source in sources if source.results]
    if not found:
        return None
    protocols = _protocols(found)
    tasks = [task for task in NAMES if task in protocols] + sorted(protocols.keys() - NAMES.keys())
    warnings = [f"{source.label} has no downstream results." for source in sources if not source.results]
    values = {}
    for source in found:
        scores = _scores(source, protocols, tasks)
        if scores:
            values[source.label] = scores
        for task, protocol in sorted({(result.task, _protocol(result)) for _, result in source.results}):
            if task not in scores:
                warnings.append(f"{source.label} has {task} as {protocol}, but {protocols[task]} is compared.")
    counted = [task for task in tasks if task != MISMATCHED or "mnli" not in tasks]
    names = {task: NAMES.get(task, task) for task in tasks}
    measured: dict[Protocol, list[str]] = {}
    for task in tasks:
        measured.setdefault(protocols[task], []).append(names[task])
    note = "; ".join(f"{', '.join(of_protocol)}: {protocol}" for protocol, of_protocol in measured.items())
    return compared(values, counted, baseline, SCORE, statistic, names, [f"{note}."], warnings)


def _protocols(sources: Sequence[Source]) -> dict[str, Protocol]:
    """Of each task the protocol that most labels have; on a tie that of the test split, then of the best model."""
    labels: dict[str, dict[Protocol, set[str]]] = {}
    for source in sources:
        for _, result in source.results:
            labels.setdefault(result.task, {}).setdefault(_protocol(result), set()).add(source.label)
    return {
        task: max(candidates, key=lambda p: (len(candidates[p]), p.split == "test", p.model == "best"))
        for task, candidates in labels.items()
    }


def _scores(source: Source, protocols: dict[str, Protocol], tasks: Sequence[str]) -> dict[str, dict[Run, float]]:
    scores: dict[str, dict[Run, float]] = {}
    places: dict[tuple[str, Run], tuple[Path, Result]] = {}
    for folder, result in source.results:
        if _protocol(result) != protocols[result.task]:
            continue
        run = (result.pretrained, result.seed)
        place, same = places.setdefault((result.task, run), (folder, result))
        if same != result:  # a file that sums up others says the same again
            raise ValueError(
                f"Expected one result of {result.task} with seed {result.seed} from {result.pretrained} under "
                f"{source.label!r}, got {same.value} in {place} and {result.value} in {folder}. "
                "Give each its own label: LABEL=FOLDER."
            )
        scores.setdefault(result.task, {})[run] = 100 * _finite(result, folder)
    return {task: scores[task] for task in tasks if task in scores}


def _finite(result: Result, folder: Path) -> float:
    value: object = result.value
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(
            f"Expected a number as value of {result.task} in {folder / RESULTS}, got {value!r}. Fine-tune it again."
        )
    return value


def _protocol(result: Result) -> Protocol:
    return Protocol(result.metric, result.split, result.model)
