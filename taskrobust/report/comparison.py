"""The maths of a comparison: center and spread over runs, mean and worst over tasks, gains over a baseline."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Final, Literal

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
