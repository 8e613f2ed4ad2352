"""Compare labels: center and spread over runs, mean and worst case over tasks, gains over a baseline."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Final, Literal, NamedTuple

from taskrobust.report.runs import Source, differing_settings
from taskrobust.training.results import RESULTS, Result

Statistic = Literal["mean", "median"]
Run = Hashable
Values = Mapping[str, Mapping[str, Mapping[Run, float]]]
"""Values by label, task and run. A run of several tasks has the same name in all of them."""


@dataclass(frozen=True)
class Quantity:
    """The kind of values that are compared.

    Args:
        noun: Name of the quantity.
        extreme: Adjective of its worst value over tasks.
        larger_is_better: Whether larger values are better.
        decimals: Decimals in tables.
    """

    noun: str
    extreme: str
    larger_is_better: bool
    decimals: int

    def best(self, values: Iterable[float]) -> float:
        """The best of values."""
        return max(values) if self.larger_is_better else min(values)


SCORE: Final = Quantity("score", "lowest", True, 1)
RISK: Final = Quantity("risk", "largest", False, 3)


@dataclass(frozen=True)
class Estimate:
    """Center and spread of the values of several runs.

    Args:
        value: Their mean or median.
        spread: Their sample standard deviation; NaN for a single run, or if a value is not finite.
        runs: Number of runs.
    """

    value: float
    spread: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float], statistic: Statistic = "mean") -> "Estimate":
        """Center and spread of at least one value."""
        has_spread = len(values) > 1 and all(map(math.isfinite, values))
        center = fmean(values) if statistic == "mean" else median(values)
        return cls(center, stdev(values) if has_spread else math.nan, len(values))

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the intervals of value ± spread overlap. False if a spread is unknown."""
        return abs(self.value - other.value) <= self.spread + other.spread


@dataclass(frozen=True)
class Standing:
    """A label's mean and worst case over the compared tasks. Gains are over the baseline; positive is better.

    Args:
        mean: Mean over the tasks. Its spread is that of the runs' means.
        worst: The worst value over the tasks.
        worst_task: The task of the worst value.
        mean_gain: Gain in the mean.
        mean_is_close: Whether that gain is within the spread.
        worst_gain: Gain in the worst value, even if the worst tasks differ.
        worst_is_close: Whether that gain is within the spread.
        least_gain: Smallest gain over the tasks.
        least_gain_task: The task of the smallest gain.
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
        counted: The tasks that mean and worst case are over, if all labels have them.
        baseline: The label that gains are over. If it has no values, the first label is used and a warning is added.
        quantity: The kind of values.
        statistic: Center of the runs of a task.
        titles: Titles of all tasks, in the order of the rows. Defaults to the names of the counted tasks.
        also: Tasks that a second mean includes.
        notes: Sentences on how the values were measured.
        warnings: Sentences on what is missing or differs. Those on missing tasks are added.
    """

    def __init__(
        self,
        values: Values,
        counted: Sequence[str],
        baseline: str,
        quantity: Quantity,
        statistic: Statistic = "mean",
        *,
        titles: Mapping[str, str] | None = None,
        also: Sequence[str] = (),
        notes: Sequence[str] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        self.values = values
        self.labels = list(values)
        self.baseline = baseline if baseline in values else self.labels[0]
        self.quantity = quantity
        self.statistic = statistic
        self.titles = titles or {task: task for task in counted}
        self.also = also
        self.notes = notes
        self.compared = [task for task in counted if all(task in values[label] for label in values)]
        self.estimates = {
            label: {task: Estimate.of(list(runs.values()), statistic) for task, runs in tasks.items()}
            for label, tasks in values.items()
        }
        self.standings = {label: self._standing(label) for label in values} if self.compared else {}
        self.warnings = [*warnings, *self._missing(baseline, counted)]

    def mean(self, label: str, tasks: Sequence[str]) -> Estimate:
        """Mean over tasks. Its spread is that of the means of the runs that have all of the tasks."""
        by_task = [self.values[label][task] for task in tasks]
        complete = set(by_task[0]).intersection(*by_task[1:])
        means = [fmean(values[run] for values in by_task) for run in complete]
        center = fmean(self.estimates[label][task].value for task in tasks)
        return Estimate(center, Estimate.of(means).spread if means else math.nan, len(means))

    def gain(self, label: str, task: str) -> float:
        """How much better a label is than the baseline on a task."""
        return self._better(self.estimates[label][task], self.estimates[self.baseline][task])

    def is_close(self, label: str, task: str) -> bool:
        """Whether a label and the baseline are within their spread on a task."""
        return self.estimates[label][task].overlaps(self.estimates[self.baseline][task])

    def _standing(self, label: str) -> Standing:
        worst_task = self._worst_task(label)
        worst = self.estimates[label][worst_task]
        mean, baseline_mean = self.mean(label, self.compared), self.mean(self.baseline, self.compared)
        baseline_worst = self.estimates[self.baseline][self._worst_task(self.baseline)]
        gains = {task: self.gain(label, task) for task in self.compared}
        least_gain_task = min(gains, key=gains.__getitem__)
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

    def _missing(self, baseline: str, counted: Sequence[str]) -> list[str]:
        """Sentences on a baseline and on tasks that are missing."""
        warnings = []
        if baseline not in self.values:
            warnings.append(f"The baseline {baseline} has no {self.quantity.noun}s: gains are over {self.baseline}.")
        for label, tasks in self.values.items():
            if missing := [self.titles[task] for task in counted if task not in tasks]:
                warnings.append(f"{label} lacks {', '.join(missing)}.")
        if not self.compared:
            warnings.append("No task is common to all labels: there is no mean and no worst case to compare.")
        elif len(self.compared) < len(counted):
            common = ", ".join(self.titles[task] for task in self.compared)
            warnings.append(f"Mean, worst case and gains are over the tasks that all labels have: {common}.")
        return warnings


def compare_risks(sources: Sequence[Source], baseline: str, statistic: Statistic) -> Comparison | None:
    """Compare the risks of the last held-out evaluations of pre-training; None if there are none.

    Mean and worst case are over the weighted tasks, in the unit of the losses, even if a run normalizes its risks or
    trains on a part of them.

    Args:
        sources: All labels.
        baseline: The label that gains are over.
        statistic: Center of the runs of a task.
    """
    note = "Risks of the last held-out evaluation, at step {step}, in the unit of the losses."
    return _compare_evaluations(sources, baseline, statistic, _risks, note)


def compare_within_class(sources: Sequence[Source], baseline: str, statistic: Statistic) -> Comparison | None:
    """Compare the held-out risks of words given their class, where pre-training reports them; None elsewhere.

    Args:
        sources: All labels.
        baseline: The label that gains are over.
        statistic: Center of the runs of a task.
    """
    note = (
        "Risks of a word given its class at the last held-out evaluation, at step {step}. They do not change if the "
        "model predicts a class more often everywhere, which is what weights of classes do first."
    )
    with_parts = [source for source in sources if any(_parts(run.held_out[-1]) for run in source.pretraining.values())]
    return _compare_evaluations(with_parts, baseline, statistic, _parts, note)


def _compare_evaluations(
    sources: Sequence[Source],
    baseline: str,
    statistic: Statistic,
    risks_of: Callable[[Mapping[str, Any]], Mapping[str, float | None]],
    note: str,
) -> Comparison | None:
    found = [source for source in sources if source.pretraining]
    if not found:
        return None
    if baseline not in [source.label for source in found]:
        baseline = found[0].label
    values: dict[str, dict[str, dict[Run, float]]] = {source.label: {} for source in found}
    weighted: dict[str, bool] = {}
    steps = set()
    pieces: dict[str, float] = {}
    for source in found:
        for folder, run in source.pretraining.items():
            last = run.held_out[-1]
            steps.add(last["step"])
            pieces |= _with_prefix(last, "pieces/")
            for task, risk in risks_of(last).items():
                values[source.label].setdefault(task, {})[folder] = math.inf if risk is None else risk
                weighted[task] = weighted.get(task, True) and task in (run.weighted_tasks or [task])
    warnings = [f"{source.label} has no pre-training run." for source in sources if not source.pretraining]
    if len(steps) > 1:
        warnings.append(f"The last evaluations are at different steps, from {min(steps)} to {max(steps)}.")
    notes = [note.format(step=max(steps))]
    if pieces:
        numbers = ", ".join(f"{task} {number:,.0f}" for task, number in pieces.items())
        notes.append(f"Masked pieces in the evaluation: {numbers}. A risk over few pieces says little.")
    if fixed := [task for task in weighted if not weighted[task]]:
        notes.append(f"Mean and worst case exclude {', '.join(fixed)}, whose weight is fixed.")
    counted = [task for task in weighted if weighted[task]]
    titles = {task: task for task in weighted}
    return Comparison(values, counted, baseline, RISK, statistic, titles=titles, notes=notes, warnings=warnings)


def _risks(line: Mapping[str, Any]) -> Mapping[str, float | None]:
    """The risks of an evaluation, raw where the tasks are parts of them."""
    return {**line["risks"], **_with_prefix(line, "raw/")}


def _parts(line: Mapping[str, Any]) -> Mapping[str, float]:
    return _with_prefix(line, "within/")


def _with_prefix(line: Mapping[str, Any], prefix: str) -> dict[str, float]:
    scores: Mapping[str, float] = line.get("scores", {})
    return {name.removeprefix(prefix): value for name, value in scores.items() if name.startswith(prefix)}


class _Measured(NamedTuple):
    """A task and the data that it was measured on: a row of the table."""

    task: str
    data: str


class _Protocol(NamedTuple):
    """How a score was measured. Scores of different protocols are not compared."""

    metric: str
    split: str
    model: str

    def __str__(self) -> str:
        return f"{self.metric} on {self.split}, {self.model} model"


def compare_scores(sources: Sequence[Source], baseline: str, statistic: Statistic) -> Comparison | None:
    """Compare the downstream scores, in percent; None if there are none.

    Mean and worst case exclude MNLI's mismatched genres, which would count MNLI twice. A task that was measured on
    several data sets, or at several sizes, counts as several tasks.

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
    example = {_measured(result): result for source in found for _, result in source.results}
    rows = _rows(sorted(example, key=lambda row: (example[row].place, row)))
    warnings = [f"{source.label} has no downstream results." for source in sources if not source.results]
    values = {}
    for source in found:
        scores = _scores(source, protocols, rows)
        if scores:
            values[source.label] = scores
        for row, protocol in sorted({(_measured(result), _protocol(result)) for _, result in source.results}):
            if rows[row] not in scores:
                warnings.append(f"{source.label} has {rows[row]} as {protocol}, but {protocols[row]} is compared.")
    titles = {name: example[row].title + name.removeprefix(row.task) for row, name in rows.items()}
    for row, name in rows.items():
        folders = [folder for source in found for folder, result in source.results if _measured(result) == row]
        warnings += [f"{titles[name]} was fine-tuned differently: {t}" for t in differing_settings(folders)]
    measured: dict[tuple[_Protocol, str], list[str]] = {}
    for row, name in rows.items():
        measured.setdefault((protocols[row], row.data), []).append(titles[name])
    note = "; ".join(f"{', '.join(tasks)}: {protocol}, {data}" for (protocol, data), tasks in measured.items())
    return Comparison(
        values,
        [name for row, name in rows.items() if example[row].counted],
        baseline,
        SCORE,
        statistic,
        titles=titles,
        also=[name for row, name in rows.items() if not example[row].counted],
        notes=[f"{note}."],
        warnings=warnings,
    )


def _rows(measured: Sequence[_Measured]) -> dict[_Measured, str]:
    """Names of the rows: the task, and the data too if the task was measured on several."""
    data = Counter(row.task for row in measured)
    return {row: row.task if data[row.task] == 1 else f"{row.task}, {row.data}" for row in measured}


def _protocols(sources: Sequence[Source]) -> dict[_Measured, _Protocol]:
    """The protocol of each row that most labels have; on a tie that of the test split, then of the best model."""
    labels: dict[_Measured, dict[_Protocol, set[str]]] = {}
    for source in sources:
        for _, result in source.results:
            labels.setdefault(_measured(result), {}).setdefault(_protocol(result), set()).add(source.label)
    return {
        row: max(candidates, key=lambda p: (len(candidates[p]), p.split == "test", p.model == "best"))
        for row, candidates in labels.items()
    }


def _scores(
    source: Source, protocols: Mapping[_Measured, _Protocol], rows: Mapping[_Measured, str]
) -> dict[str, dict[Run, float]]:
    scores: dict[str, dict[Run, float]] = {}
    places: dict[tuple[_Measured, Run], tuple[Path, Result]] = {}
    for folder, result in source.results:
        row = _measured(result)
        if _protocol(result) != protocols[row]:
            continue
        run = (result.pretrained, result.seed)
        place, same = places.setdefault((row, run), (folder, result))
        if same != result:  # a copy is counted once
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


def _protocol(result: Result) -> _Protocol:
    return _Protocol(result.metric, result.split, result.model)


def _measured(result: Result) -> _Measured:
    return _Measured(result.task, result.data)
