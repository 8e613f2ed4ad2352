"""Compares labels: center and spread over runs, mean and worst over tasks, gains over a baseline."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Final, Literal, NamedTuple

from taskrobust.report.runs import Source, differing_settings
from taskrobust.training.results import RESULTS, Result

Statistic = Literal["mean", "median"]
Run = Hashable
Values = Mapping[str, Mapping[str, Mapping[Run, float]]]
"""Values by label, task and run. A run of several tasks has the same name in all of them."""


@dataclass(frozen=True)
class Quantity:
    """What is compared.

    Args:
        noun: What it is called.
        extreme: What its worst value over tasks is called.
        larger_is_better: Whether it is.
        decimals: Digits after the point that tables show.
    """

    noun: str
    extreme: str
    larger_is_better: bool
    decimals: int


SCORE: Final = Quantity("score", "lowest", True, 1)
RISK: Final = Quantity("risk", "largest", False, 3)


@dataclass(frozen=True)
class Estimate:
    """Center and spread of the values of several runs.

    Args:
        value: Their mean or median.
        spread: Their sample standard deviation, NaN for a single run and where a value is not finite.
        runs: How many they are.
    """

    value: float
    spread: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float], statistic: Statistic = "mean") -> "Estimate":
        """Center and spread of values, of which there is at least one."""
        has_spread = len(values) > 1 and all(map(math.isfinite, values))
        center = fmean(values) if statistic == "mean" else median(values)
        return cls(center, stdev(values) if has_spread else math.nan, len(values))

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the intervals of value ± spread overlap. False where a spread is not known."""
        return abs(self.value - other.value) <= self.spread + other.spread


@dataclass(frozen=True)
class Standing:
    """How a label does over all compared tasks. Gains are over the baseline, positive is better.

    Args:
        mean: Mean over the tasks; its spread is that of the runs' means.
        worst: The worst value over the tasks.
        worst_task: The task that has it.
        mean_gain: Gain in the mean.
        mean_is_close: Whether it is within the spread.
        worst_gain: Gain in the worst value, whichever the tasks are.
        worst_is_close: Whether it is within the spread.
        least_gain: Smallest gain of a task.
        least_gain_task: The task that has it.
    """

    mean: Estimate
    worst: Estimate
    worst_task: str
    mean_gain: float
    mean_is_close: bool
    worst_gain: float
    worst_is_close: bool
    least_gain: float
    least_gain_task: str


class Comparison:
    r"""Compares labels, such as weightings, on the tasks that all of them have.

    With :math:`v_{lt}` the mean or median over the runs of label l on task t, larger being better:

    .. math::
        \bar v_l = \frac1T \sum_t v_{lt}, \qquad \min_t v_{lt}, \qquad \min_t (v_{lt} - v_{bt})

    are a label's mean, its worst value, and its smallest gain over the baseline b.

    Args:
        values: Values by label, task and run.
        counted: The tasks that mean and worst are over, if all labels have them.
        baseline: The label that gains are over.
        quantity: What the values are.
        statistic: Center of the runs of a task.
    """

    def __init__(
        self,
        values: Values,
        counted: Sequence[str],
        baseline: str,
        quantity: Quantity,
        statistic: Statistic = "mean",
    ) -> None:
        self.values = values
        self.baseline = baseline
        self.quantity = quantity
        self.statistic = statistic
        self.labels = list(values)
        self.counted = list(counted)
        self.compared = [task for task in counted if all(task in values[label] for label in values)]
        self.estimates = {
            label: {task: Estimate.of(list(runs.values()), statistic) for task, runs in tasks.items()}
            for label, tasks in values.items()
        }
        self.standings = {label: self._standing(label) for label in values} if self.compared else {}

    def missing(self, label: str) -> list[str]:
        """The counted tasks that a label lacks."""
        return [task for task in self.counted if task not in self.values[label]]

    def mean(self, label: str, tasks: Sequence[str]) -> Estimate:
        """Mean over tasks, with the spread of the means of those runs that have all of the tasks."""
        by_task = [self.values[label][task] for task in tasks]
        complete = set(by_task[0]).intersection(*by_task[1:])
        means = [fmean(values[run] for values in by_task) for run in complete]
        center = fmean(self.estimates[label][task].value for task in tasks)
        return Estimate(center, Estimate.of(means).spread if means else math.nan, len(means))

    def gain(self, label: str, task: str) -> float:
        """How much better a label is than the baseline on a task."""
        return self._better(self.estimates[label][task], self.estimates[self.baseline][task])

    def is_close(self, label: str, task: str) -> bool:
        """Whether a label and the baseline lie within their spread on a task."""
        return self.estimates[label][task].overlaps(self.estimates[self.baseline][task])

    def _standing(self, label: str) -> Standing:
        worst_task = self._worst_task(label)
        worst = self.estimates[label][worst_task]
        mean, baseline_mean = self.mean(label, self.compared), self.mean(self.baseline, self.compared)
        baseline_worst = self.estimates[self.baseline][self._worst_task(self.baseline)]
        gains = {task: self.gain(label, task) for task in self.compared}
        least_gain_task = min(gains, key=lambda task: gains[task])
        return Standing(
            mean=mean,
            worst=worst,
            worst_task=worst_task,
            mean_gain=self._better(mean, baseline_mean),
            mean_is_close=mean.overlaps(baseline_mean),
            worst_gain=self._better(worst, baseline_worst),
            worst_is_close=worst.overlaps(baseline_worst),
            least_gain=gains[least_gain_task],
            least_gain_task=least_gain_task,
        )

    def _worst_task(self, label: str) -> str:
        worst = min if self.quantity.larger_is_better else max
        return worst(self.compared, key=lambda task: self.estimates[label][task].value)

    def _better(self, one: Estimate, other: Estimate) -> float:
        gain = one.value - other.value
        return gain if self.quantity.larger_is_better else -gain


@dataclass(frozen=True)
class Compared:
    """A comparison with all that a reader has to know of it.

    Args:
        comparison: The comparison.
        names: What the tasks are called.
        notes: Sentences on how the values were measured.
        warnings: Sentences on what is missing or differs.
    """

    comparison: Comparison
    names: Mapping[str, str]
    notes: Sequence[str]
    warnings: Sequence[str]


def compared(
    values: Values,
    counted: Sequence[str],
    baseline: str,
    quantity: Quantity,
    statistic: Statistic,
    names: Mapping[str, str],
    notes: Sequence[str],
    warnings: Sequence[str],
) -> Compared:
    """Compare, and warn of tasks that not all labels have."""
    warnings = list(warnings)
    if baseline not in values:
        other = next(iter(values))
        warnings.append(f"The baseline {baseline} has no {quantity.noun}s: gains are over {other}.")
        baseline = other
    comparison = Comparison(values, counted, baseline, quantity, statistic)
    missing = {label: comparison.missing(label) for label in comparison.labels}
    for label, tasks in missing.items():
        if tasks:
            warnings.append(f"{label} lacks {', '.join(names[task] for task in tasks)}.")
    if not comparison.compared:
        warnings.append("No task is common to all labels: there is no mean and no worst case to compare.")
    elif any(missing.values()):
        common = ", ".join(names[task] for task in comparison.compared)
        warnings.append(f"Mean, worst case and gains are over the tasks that all labels have: {common}.")
    return Compared(comparison, names, notes, warnings)


def compare_risks(sources: Sequence[Source], baseline: str, statistic: Statistic) -> Compared | None:
    """Compare the risks of the last held-out evaluations of pre-training; None where there are none.

    Mean and worst are over the tasks that the runs weigh, in the unit of the losses, whatever unit a run weighs in.

    Args:
        sources: All labels.
        baseline: The label that gains are over.
        statistic: Center of the runs of a task.
    """
    found = [source for source in sources if source.pretraining]
    if not found:
        return None
    values: dict[str, dict[str, dict[Run, float]]] = {source.label: {} for source in found}
    counted: dict[str, bool] = {}
    steps = set()
    for source in found:
        for folder, run in source.pretraining.items():
            last = run.held_out[-1]
            steps.add(last["step"])
            for task, risk in last["risks"].items():
                values[source.label].setdefault(task, {})[folder] = math.inf if risk is None else risk
                counted[task] = counted.get(task, True) and task in (run.weighted_tasks or [task])
    warnings = [f"{source.label} has no pre-training run." for source in sources if not source.pretraining]
    if len(steps) > 1:
        warnings.append(f"The last evaluations are of different steps, from {min(steps)} to {max(steps)}.")
    names = {task: task for task in counted}
    fixed = [task for task, weighted in counted.items() if not weighted]
    notes = [f"Of the last evaluation on held-out data, at step {max(steps)}, in the unit of the losses."]
    if fixed:
        notes.append(f"Mean and worst are without {', '.join(fixed)}, of fixed weight.")
    weighted_tasks = [task for task, weighted in counted.items() if weighted]
    return compared(values, weighted_tasks, baseline, RISK, statistic, names, notes, warnings)


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
