import math

import numpy as np
import pytest

from taskrobust.report.comparison import RISK, SCORE, Comparison, Estimate, Statistic

RANDOM = np.random.default_rng(0)
TASKS = ["a", "b", "c"]
SCORES = {label: RANDOM.normal(50, 10, size=(3, 5)) for label in ("average", "minimax", "dwa")}


def values(scores: dict[str, np.ndarray]) -> dict[str, dict[str, dict[object, float]]]:
    return {
        label: {t: dict(enumerate(map(float, row))) for t, row in zip(TASKS, of, strict=True)}
        for label, of in scores.items()
    }


@pytest.mark.parametrize(("statistic", "center"), [("mean", np.mean), ("median", np.median)])
def test_standings_agree_with_numpy(statistic: Statistic, center: object) -> None:
    comparison = Comparison(values(SCORES), TASKS, "average", SCORE, statistic)
    baseline = center(SCORES["average"], axis=1)
    for label, scores in SCORES.items():
        centers, standing = center(scores, axis=1), comparison.standings[label]
        gains = centers - baseline
        assert standing.mean.value == pytest.approx(centers.mean())
        assert standing.mean.spread == pytest.approx(scores.mean(axis=0).std(ddof=1))
        assert standing.worst.value == pytest.approx(centers.min())
        assert standing.worst.spread == pytest.approx(scores[centers.argmin()].std(ddof=1))
        assert standing.worst_task == TASKS[centers.argmin()]
        assert standing.mean_gain == pytest.approx(gains.mean())
        assert standing.worst_gain == pytest.approx(centers.min() - baseline.min())
        assert standing.least_gain == pytest.approx(gains.min())
        assert standing.least_gain_task == TASKS[gains.argmin()]


def test_the_largest_risk_is_the_worst_and_a_smaller_one_is_a_gain() -> None:
    runs = {"average": {"a": {0: 1.0}, "b": {0: 3.0}}, "minimax": {"a": {0: 1.5}, "b": {0: 2.0}}}
    standing = Comparison(runs, ["a", "b"], "average", RISK).standings["minimax"]
    assert (standing.worst_task, standing.worst.value, standing.worst_gain) == ("b", 2.0, 1.0)
    assert (standing.mean_gain, standing.least_gain_task, standing.least_gain) == (0.25, "a", -0.5)


def test_mean_and_worst_are_over_the_tasks_that_all_labels_have() -> None:
    runs = {"average": {"a": {0: 10.0}, "b": {0: 20.0}}, "minimax": {"b": {0: 30.0}}}
    comparison = Comparison(runs, ["a", "b"], "average", SCORE)
    assert comparison.compared == ["b"]
    assert comparison.standings["average"].mean.value == 20.0
    assert comparison.warnings == [
        "minimax lacks a.",
        "Mean, worst case and gains are over the tasks that all labels have: b.",
    ]


def test_labels_without_a_common_task_have_no_standing() -> None:
    comparison = Comparison({"x": {"a": {0: 1.0}}, "y": {"b": {0: 1.0}}}, ["a", "b"], "x", SCORE)
    assert comparison.standings == {}


def test_spread_of_the_mean_is_of_runs_that_have_all_tasks() -> None:
    runs = {"average": {"a": {0: 1.0, 1: 3.0, 2: 50.0}, "b": {0: 1.0, 1: 5.0}}}
    mean = Comparison(runs, ["a", "b"], "average", SCORE).standings["average"].mean
    assert mean.value == pytest.approx((18 + 3) / 2)
    assert (mean.spread, mean.runs) == (pytest.approx(np.std([1.0, 4.0], ddof=1)), 2)


def test_one_run_has_no_spread() -> None:
    estimate = Comparison({"x": {"a": {0: 1.0}}}, ["a"], "x", SCORE).estimates["x"]["a"]
    assert math.isnan(estimate.spread)
    assert not estimate.overlaps(estimate)


def test_intervals_overlap_up_to_the_sum_of_the_spreads() -> None:
    assert Estimate(1.0, 0.25, 3).overlaps(Estimate(1.75, 0.5, 3))
    assert not Estimate(1.0, 0.25, 3).overlaps(Estimate(1.76, 0.5, 3))
