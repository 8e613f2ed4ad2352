from pathlib import Path

import pytest
from matplotlib import image

from taskrobust.report.plots import _smooth, plot_risks_and_weights
from taskrobust.report.runs import RunRecord, mean_run


def record(label: str) -> RunRecord:
    training = [
        {
            "step": step,
            "risks": {"noun": 5 / step, "verb": None if step == 2 else 1.0, "nsp": 0.7},
            "weights": {"noun": 0.5, "verb": 0.5},
        }
        for step in range(1, 9)
    ]
    return RunRecord(label, training, [{"step": 8, "risks": {"noun": 1.0}, "worst_task": "noun"}])


def test_plot_has_one_column_per_run_and_is_not_blank(tmp_path: Path) -> None:
    plot_risks_and_weights([record("a"), record("b")], tmp_path / "plot.png")
    pixels = image.imread(tmp_path / "plot.png")
    assert pixels.shape[1] == pytest.approx(11 * 130, abs=2)
    assert pixels[..., :3].std() > 0.05


def test_smoothing_is_an_unbiased_exponential_mean_with_gaps() -> None:
    nan = float("nan")
    smoothed = _smooth([1.0, nan, 3.0], decay=0.5)
    assert smoothed[0] == 1.0
    assert smoothed[1] != smoothed[1]
    assert smoothed[2] == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75)


def test_mean_run_is_the_mean_on_common_steps() -> None:
    first, second = record("a"), record("a")
    for line in second.training:
        line["risks"] = {"noun": 3.0, "verb": 3.0, "nsp": None}
    del second.training[3]
    for run in (first, second):
        for line in run.training:
            line["effective_tasks"] = 2.0
    mean = mean_run([first, second])
    assert [line["step"] for line in mean.training] == [1, 2, 3, 5, 6, 7, 8]
    assert mean.training[1]["risks"] == {"noun": pytest.approx((5 / 2 + 3) / 2), "verb": 3.0, "nsp": 0.7}
    assert mean.held_out[-1]["risks"] == {"noun": 1.0}
    assert mean.held_out[-1]["worst_task"] == "noun"
