import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT, Toy
from tests.helpers.toy import assert_same_curve, lines

RUNS = {
    "plain": {"clip_norm": 1.0, "average": "ema"},
    "window of running risks": {"accumulation": 2},
    "window of two passes": {"accumulation": 2, "window_weights": "two_pass"},
    "GradNorm": {"weighting": "grad_norm"},
    "GradNorm in windows": {"weighting": "grad_norm", "accumulation": 2},
    "uncertainty": {"weighting": "uncertainty", "smoothing": 0.9},
    "DWA by epoch": {"weighting": "dwa_by_epoch"},
    "loaded by workers": {"workers": 1},
    "sharded": {"parallel": "fsdp2", "clip_norm": 1.0},
    "sharded with windows": {"parallel": "fsdp2", "accumulation": 2, "window_weights": "two_pass"},
    "sharded with GradNorm": {"parallel": "fsdp2", "weighting": "grad_norm", "accumulation": 2},
}


def command(folder: Path, **settings: object) -> list[str]:
    return ["-m", "tests.helpers.toy", str(folder), *(f"{name}={value}" for name, value in settings.items())]


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_two_processes_are_one_with_twice_the_batch(toy: Toy, tmp_path: Path, settings: dict[str, object]) -> None:
    one = toy(tmp_path / "one", batch_size=4, log_every=1, **settings | {"parallel": "ddp"})
    two = toy(tmp_path / "two", processes=2, batch_size=2, log_every=1, **settings)
    assert (one.codes, two.codes) == ([0], [0, 0]), one.output + two.output
    assert_same_curve(tmp_path / "two", tmp_path / "one")
    train = lines(tmp_path / "two", "train")
    assert any(line["risks"]["rare"] is None for line in train)
    assert any(line["risks"]["rare"] is not None for line in train)


def test_window_of_two_passes_is_one_pass_over_the_union(toy: Toy, tmp_path: Path) -> None:
    toy(tmp_path / "union", batch_size=8)
    toy(tmp_path / "window", processes=2, batch_size=2, accumulation=2, window_weights="two_pass")
    assert_same_curve(tmp_path / "window", tmp_path / "union")


def test_a_weighting_with_parameters_is_refused_where_the_model_is_sharded(toy: Toy, tmp_path: Path) -> None:
    outcome = toy(tmp_path, processes=2, parallel="fsdp2", weighting="uncertainty")
    assert outcome.codes == [1, 1]
    assert "Expected average='none' and a weighting without parameters with parallel='fsdp2'" in outcome.output


def test_torchrun_starts_what_the_other_tests_start_by_themselves(toy: Toy, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    settings = {"batch_size": 2, "dropout": 0.3}
    subprocess.run(
        [*torchrun, *command(tmp_path / "torchrun", **settings)],
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    toy(tmp_path / "forked", processes=2, **settings)
    assert lines(tmp_path / "torchrun") == lines(tmp_path / "forked")
