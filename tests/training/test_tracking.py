import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from taskrobust import MultiTaskLoss, TaskLosses
from taskrobust.training.evaluation import Evaluation
from taskrobust.training.tracking import Tracker

TASKS = ("noun", "verb")
NAN = torch.tensor(torch.nan)


class Run:
    """A tracker with steps of given losses."""

    def __init__(self, folder: Path, step: int = 0, steps: int = 100, log_every: int = 2) -> None:
        self.criterion = MultiTaskLoss(TASKS, "uniform", auxiliary={"nsp": 0.5}, on_nonfinite="skip")
        metrics = folder / "metrics.jsonl"
        self.tracker = Tracker(metrics, self.criterion, steps, log_every, torch.device("cpu"), main=True)
        self.number = step

    def start(self) -> "Run":
        self.tracker.start(self.number, 8 * self.number)
        return self

    def step(self, noun: float, verb: float | None, nsp: float, norm: torch.Tensor = NAN) -> None:
        self.number += 1
        present = torch.tensor([1.0, float(verb is not None), 1.0])
        self.criterion(TaskLosses(torch.tensor([noun, verb or 0.0, nsp]), present))
        self.tracker.step(self.number, 8 * self.number, norm, lr=0.1 * self.number)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_line_holds_means_over_its_steps(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.step(1.0, 3.0, 10.0, norm=torch.tensor(2.0))
    run.step(2.0, None, 20.0, norm=torch.tensor(4.0))
    run.tracker.close()
    (line,) = lines(tmp_path)
    assert line.pop("samples_per_second") > 0
    assert line == {
        "step": 2,
        "split": "train",
        "samples": 16,
        "loss": pytest.approx((0.5 * 1 + 0.5 * 3 + 0.5 * 10 + 2 + 0.5 * 20) / 2),
        "gradient_norm": 3.0,
        "lr": 0.2,
        "risks": {"noun": 1.5, "verb": 3.0, "nsp": 15.0},
        "weights": {"noun": 0.75, "verb": 0.25},
        "worst_task": "verb",
        "entropy": pytest.approx(math.log(2) / 2),
        "effective_tasks": pytest.approx(math.sqrt(2)),
        "skipped": 0,
    }


def test_task_that_was_absent_from_all_steps_of_a_line_has_the_risk_null(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.step(1.0, None, 10.0)
    run.step(2.0, None, 20.0)
    run.tracker.close()
    (line,) = lines(tmp_path)
    assert line["risks"] == {"noun": 1.5, "verb": None, "nsp": 15.0}
    assert line["gradient_norm"] is None
    assert line["worst_task"] == "noun"


def test_skipped_step_is_in_no_mean(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.step(1.0, 3.0, 10.0)
    run.step(torch.inf, 3.0, 20.0)
    run.tracker.close()
    (line,) = lines(tmp_path)
    assert line["risks"] == {"noun": 1.0, "verb": 3.0, "nsp": 10.0}
    assert line["loss"] == pytest.approx(7.0)
    assert line["skipped"] == 1


def test_last_step_writes_a_line_though_it_is_not_full(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=3).start()
    for _ in range(3):
        run.step(1.0, 3.0, 10.0)
    run.tracker.close()
    assert [line["step"] for line in lines(tmp_path)] == [2, 3]


@pytest.mark.parametrize("log_every", [2, 3, 5])
def test_resumed_run_goes_on_within_a_line(tmp_path: Path, log_every: int) -> None:
    run = Run(tmp_path, log_every=4).start()
    for noun in (1.0, 2.0, 3.0):
        run.step(noun, 0.0, 0.0)
    resumed = Run(tmp_path, step=3, log_every=log_every)
    resumed.tracker.load_state_dict(run.tracker.state_dict())
    run.tracker.close()
    resumed.start()
    while not (tmp_path / "metrics.jsonl").exists():
        resumed.step(6.0, 0.0, 0.0)
    resumed.tracker.close()
    (line,) = lines(tmp_path)
    assert line["step"] == max(log_every, 4)
    assert line["risks"]["noun"] == pytest.approx((6 + 6 * (line["step"] - 3)) / line["step"])


def test_lines_after_the_checkpoint_and_a_torn_one_are_dropped(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    for noun in range(8):
        run.step(float(noun), 3.0, 10.0)
    run.tracker.evaluation(8, Evaluation({"noun": 1.0}, 1.0, 1.0, "noun"), best=True)
    run.tracker.close()
    before = lines(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "spl')
    Run(tmp_path, step=8).start().tracker.close()
    assert lines(tmp_path) == before
    Run(tmp_path, step=5).start().tracker.close()
    assert lines(tmp_path) == before[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_evaluation_is_a_line_and_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path).start()
    run.tracker.evaluation(4, Evaluation({"noun": 1.0, "verb": 2.5}, 1.75, 2.5, "verb"), best=True)
    run.tracker.close()
    assert lines(tmp_path) == [
        {
            "step": 4,
            "split": "held_out",
            "best": True,
            "risks": {"noun": 1.0, "verb": 2.5},
            "mean": 1.75,
            "worst": 2.5,
            "worst_task": "verb",
            "scores": {},
        }
    ]
    assert capsys.readouterr().out == "step 4: held-out mean 1.750, worst 2.500 (verb), the best so far\n"


def test_tensorboard_has_the_risk_and_weight_of_every_task(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    for noun in (1.0, 2.0, 3.0, 4.0):
        run.step(noun, 3.0, 10.0)
    run.tracker.evaluation(4, Evaluation({"noun": 1.0, "verb": 2.5}, 1.75, 2.5, "verb"), best=True)
    run.tracker.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curves = {tag: [(point.step, point.value) for point in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    expected = {
        "risk/noun": [(2, 1.5), (4, 3.5)],
        "risk/verb": [(2, 3.0), (4, 3.0)],
        "risk/nsp": [(2, 10.0), (4, 10.0)],
        "weight/noun": [(2, 0.5), (4, 0.5)],
        "weight/verb": [(2, 0.5), (4, 0.5)],
        "held_out/noun": [(4, 1.0)],
        "held_out/worst": [(4, 2.5)],
        "held_out/mean": [(4, 1.75)],
        "train/effective_tasks": [(2, pytest.approx(2.0)), (4, pytest.approx(2.0))],
    }
    assert {tag: curves[tag] for tag in expected} == expected


def test_text_is_said_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "[enforce fail at inline_container.cc:595] :warning: unexpected pos [/] " + 20 * "long line "
    Run(tmp_path).tracker.say(text)
    assert capsys.readouterr().out == text + "\n"


def test_other_ranks_write_and_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, log_every=1)
    run.tracker.main = False
    run.start()
    run.step(1.0, 2.0, 3.0)
    run.tracker.evaluation(1, Evaluation({"noun": 1.0}, 1.0, 1.0, "noun"), best=True)
    run.tracker.say("something")
    run.tracker.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_scores_stand_in_for_risks_where_there_are_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path).start()
    scored = Evaluation({"noun": 1.0}, 1.0, 1.0, "noun", {"accuracy": 0.75, "f1": 0.5})
    run.tracker.evaluation(4, scored, best=False)
    run.tracker.evaluation(4, scored, best=True, split="test")
    run.tracker.close()
    assert [(line["split"], line["scores"]) for line in lines(tmp_path)] == [
        ("held_out", {"accuracy": 0.75, "f1": 0.5}),
        ("test", {"accuracy": 0.75, "f1": 0.5}),
    ]
    printed = capsys.readouterr().out
    assert "step 4: held-out accuracy 0.7500, f1 0.5000, without ['verb']" in printed
    assert (
        "step 4: test accuracy 0.7500, f1 0.5000, without ['verb'], of which there was no element, of the best"
        in printed
    )
