"""The demos, as a user runs them, with tiny configurations."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TINY: dict[str, dict[str, Any]] = {
    "nlp": {
        "corpus": {"documents": 200, "held_out_documents": 40, "vocab_size": 400},
        "bert": {"layers": 1, "hidden": 32, "heads": 2},
        "loop": {"batch_size": 8, "log_every": 10, "eval_every": 1000, "checkpoint_every": 20},
    },
    "vision": {
        "scenes": {"train": 60, "held_out": 12, "num_proc": 1},
        "mae": {"width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_heads": 2},
        "loop": {"batch_size": 4, "log_every": 2},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose configs/ have tiny demos, which are found before those of the package."""
    for kind, changes in TINY.items():
        config = yaml.safe_load((ROOT / f"configs/{kind}/demo.yaml").read_text())
        for group, values in changes.items():
            config[group] |= values
        path = tmp_path / f"configs/{kind}/demo.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(config))
    return tmp_path


def start(folder: Path, *words: object, **more: Any) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "taskrobust", *map(str, words), "--output", str(folder / "out")]
    environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, **more)


def to_the_end(folder: Path, *words: object, **more: Any) -> str:
    process = start(folder, *words, **more)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def runs(folder: Path) -> list[Path]:
    return [folder / "out/average-seed0", folder / "out/minimax-seed0"]


def test_demo_compares_two_runs_and_does_not_repeat_finished_ones(folder: Path) -> None:
    printed = to_the_end(folder, "demo", "--steps", 4, "--device.precision", "fp32")
    table = json.loads((folder / "out/table.json").read_text())
    assert set(table) == {"average of nine", "minimax"}
    assert "worst task" in printed
    assert "minimax: step 4 of 4: loss" in printed
    assert "average of nine: device     CPU, fp32 (as set), 1 thread (as set)" in printed
    assert f"taskrobust compare average={folder}/out/average-seed0 minimax={folder}/out/minimax-seed0" in printed
    assert printed.replace("\n", "").isprintable()  # no control characters
    assert (folder / "out/table.md").read_text().count("\n") == 15
    assert (folder / "out/risks_and_weights.png").stat().st_size > 10_000
    for run in runs(folder):
        device = yaml.safe_load((run / "config.yaml").read_text())["device"]
        assert (device["precision"], device["threads"]) == ("fp32", 1)
        os.rename(run / "checkpoints", run / "moved")
    assert "starts" not in to_the_end(folder, "demo", "--steps", 4, "--device.precision", "fp32")
    assert not any((run / "checkpoints").exists() for run in runs(folder))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="leaves the process one core")
def test_vision_demo_trains_one_after_the_other_on_one_core(folder: Path) -> None:
    core = min(os.sched_getaffinity(0))
    printed = to_the_end(folder, "demo", "vision", "--steps", 2, preexec_fn=lambda: os.sched_setaffinity(0, [core]))
    assert "one after the other, as there is one core" in printed
    assert printed.index("average-seed0 is finished") < printed.index("minimax-seed0 starts")
    for name in ("table.md", "table.json", "risks_and_weights.png", "predictions.png"):
        assert (folder / "out" / name).stat().st_size > 100


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_demo_ends_its_runs_and_resumes(how: signal.Signals, folder: Path) -> None:
    words = ("demo", "--steps", 800, "--device.precision", "fp32")
    process = start(folder, *words, stderr=subprocess.DEVNULL)
    while not all(list(run.glob("checkpoints/step-*")) for run in runs(folder)):
        assert process.poll() is None, "the demo ended before it could be interrupted"
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=100)
    assert process.returncode != 0
    for _ in range(600):
        if not _running(folder):
            break
        time.sleep(0.1)
    assert not _running(folder)
    assert not any((run / "model").exists() for run in runs(folder)), "the runs ended before they could be interrupted"
    to_the_end(folder, *words)
    for name in ("average-seed0", "minimax-seed0"):
        assert "Resuming from step" in (folder / f"out/logs/{name}.log").read_text()


def _running(folder: Path) -> bytes:
    return subprocess.run(["pgrep", "-f", str(folder / "out")], capture_output=True, check=False).stdout
