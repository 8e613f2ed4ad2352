import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from taskrobust import MultiTaskLoss, TaskLosses
from taskrobust.training.callbacks import curves
from taskrobust.training.evaluation import Evaluation
from taskrobust.training.metrics import CLOCKED, Metrics, peak_flops, peak_memory

TASKS = ("noun", "verb")
NAN = torch.tensor(torch.nan)


class Run:
    """Metrics of steps of given losses."""

    def __init__(self, folder: Path, step: int = 0, steps: int = 100, log_every: int = 2, main: bool = True) -> None:
        self.criterion = MultiTaskLoss(TASKS, "uniform", auxiliary={"nsp": 0.5}, on_nonfinite="skip")
        path, device = folder / "metrics.jsonl", torch.device("cpu")
        self.reported: list[dict[str, Any]] = []
        self.metrics = Metrics(path, self.criterion, steps, log_every, device, main, self.reported.append, print)
        self.number = step

    def start(self) -> "Run":
        self.metrics.start(self.number, 8 * self.number)
        return self

    def step(self, noun: float, verb: float | None, nsp: float, norm: torch.Tensor = NAN) -> None:
        self.number += 1
        present = torch.tensor([1.0, float(verb is not None), 1.0])
        self.criterion(TaskLosses(torch.tensor([noun, verb or 0.0, nsp]), present))
        self.metrics.step(self.number, 8 * self.number, norm, 0.1 * self.number, loading=0.0)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_line_holds_means_over_its_steps(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.step(1.0, 3.0, 10.0, norm=torch.tensor(2.0))
    run.step(2.0, None, 20.0, norm=torch.tensor(4.0))
    (line,) = lines(tmp_path)
    assert all(line.pop(name, 1) >= 0 for name in CLOCKED)
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
    (line,) = lines(tmp_path)
    assert line["risks"] == {"noun": 1.5, "verb": None, "nsp": 15.0}
    assert line["gradient_norm"] is None
    assert line["worst_task"] == "noun"


def test_skipped_step_is_in_no_mean(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.step(1.0, 3.0, 10.0)
    run.step(torch.inf, 3.0, 20.0)
    (line,) = lines(tmp_path)
    assert line["risks"] == {"noun": 1.0, "verb": 3.0, "nsp": 10.0}
    assert line["loss"] == pytest.approx(7.0)
    assert line["skipped"] == 1


def test_last_step_writes_a_line_though_it_is_not_full(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=3).start()
    for _ in range(3):
        run.step(1.0, 3.0, 10.0)
    assert [line["step"] for line in lines(tmp_path)] == [2, 3]


@pytest.mark.parametrize("log_every", [2, 3, 5])
def test_resumed_run_goes_on_within_a_line(tmp_path: Path, log_every: int) -> None:
    run = Run(tmp_path, log_every=4).start()
    for noun in (1.0, 2.0, 3.0):
        run.step(noun, 0.0, 0.0)
    resumed = Run(tmp_path, step=3, log_every=log_every)
    resumed.metrics.load_state_dict(run.metrics.state_dict())
    resumed.start()
    while not (tmp_path / "metrics.jsonl").exists():
        resumed.step(6.0, 0.0, 0.0)
    (line,) = lines(tmp_path)
    assert line["step"] == max(log_every, 4)
    assert line["risks"]["noun"] == pytest.approx((6 + 6 * (line["step"] - 3)) / line["step"])


def test_lines_after_the_checkpoint_and_a_torn_one_are_dropped(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    for noun in range(8):
        run.step(float(noun), 3.0, 10.0)
    run.metrics.evaluation(8, Evaluation({"noun": 1.0}, 1.0, 1.0, "noun"), "held_out", best=True)
    before = lines(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "spl')
    Run(tmp_path, step=8).start()
    assert lines(tmp_path) == before
    Run(tmp_path, step=5).start()
    assert lines(tmp_path) == before[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_evaluation_is_a_line(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.metrics.evaluation(4, Evaluation({"noun": 1.0, "verb": 2.5}, 1.75, 2.5, "verb"), "held_out", best=True)
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
    assert run.reported == lines(tmp_path)


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, log_every=1, main=False).start()
    run.step(1.0, 2.0, 3.0)
    run.metrics.evaluation(1, Evaluation({"noun": 1.0}, 1.0, 1.0, "noun"), "held_out", best=True)
    assert list(tmp_path.iterdir()) == []
    assert run.reported == []


def test_share_of_the_time_that_waits_for_data_and_the_memory_are_measured(tmp_path: Path) -> None:
    run = Run(tmp_path, log_every=1).start()
    time.sleep(0.01)
    run.criterion(TaskLosses(torch.ones(3), torch.ones(3)))
    run.metrics.step(1, 8, NAN, 0.1, loading=0.005)
    (line,) = lines(tmp_path)
    assert 0 < line["data_loading_share"] <= 0.5
    assert line["peak_memory_gib"] == pytest.approx(peak_memory(torch.device("cpu")) / 2**30)
    assert "mfu" not in line


def test_mfu_is_a_share_of_the_peak_of_a_known_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert peak_flops(torch.device("cuda")) == 989e12
    assert peak_flops(torch.device("cpu")) is None
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "GPU of tomorrow")
    assert peak_flops(torch.device("cuda")) is None
    monkeypatch.setattr("taskrobust.training.metrics.peak_flops", lambda device: 1e12)
    run = Run(tmp_path).start()
    run.metrics.flops_per_step = 1e9
    begin = time.perf_counter()
    run.step(1.0, 3.0, 10.0)
    run.step(1.0, 3.0, 10.0)
    (line,) = lines(tmp_path)
    assert line["mfu"] >= 2e9 / ((time.perf_counter() - begin) * 1e12)


def test_curves_have_the_risk_and_weight_of_every_task(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.step(1.0, None, 10.0)
    run.step(2.0, None, 10.0)
    run.metrics.evaluation(2, Evaluation({"noun": 1.0}, 1.0, 1.0, "noun"), "held_out", best=True)
    run.metrics.evaluation(2, Evaluation({"noun": 1.0}, 1.0, 1.0, "noun", {"f1": 0.5}), "test", best=True)
    train, held_out, test = map(curves, run.reported)
    assert {"risk/noun": 1.5, "risk/nsp": 10.0, "weight/noun": 1.0, "weight/verb": 0.0}.items() <= train.items()
    assert "risk/verb" not in train
    assert held_out == {"held_out/noun": 1.0, "held_out/mean": 1.0, "held_out/worst": 1.0}
    assert test == {"test/noun": 1.0, "test/f1": 0.5}


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe not text\n", b"{\n", b"[]\n", b'{"step": "x", "split": "train"}\n', b"null\n"]
)
def test_damaged_lines_are_named_left_out_and_kept_aside(
    damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path).start()
    for noun in range(6):
        run.step(float(noun), 3.0, 10.0)
    path = tmp_path / "metrics.jsonl"
    first, _, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + third)
    Run(tmp_path, step=6).start()
    assert f"Lines [2] of {path} are damaged and left out" in capsys.readouterr().out
    assert path.read_bytes() == first + third
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == first + damage + third
