from pathlib import Path

import pytest

from tests.helpers.processes import Toy
from tests.helpers.toy import STEPS, assert_same_curve, assert_same_run, digests, lines

RUNS = {
    "dropout": {"dropout": 0.3},
    "workers": {"dropout": 0.3, "workers": 2, "clip_norm": 0.5, "smoothing": 0.9},
    "window of running risks": {"dropout": 0.3, "accumulation": 2, "smoothing": 0.9},
    "window of two passes": {"dropout": 0.3, "accumulation": 2, "window_weights": "two_pass"},
    "GradNorm": {"weighting": "grad_norm", "dropout": 0.3},
    "uncertainty in bf16 with EMA": {"weighting": "uncertainty", "precision": "bf16", "average": "ema"},
    "DWA by epoch with the averaged iterate": {"weighting": "dwa_by_epoch", "average": "iterate", "schedule": "cosine"},
    "random weights": {"weighting": "random_weights"},
}
WATCHED = {"log_every": 4}
"""Checkpoints every 5 steps and lines every 4: checkpoints hold one, two and three steps that are in no line yet."""


def run_to_the_end(toy: Toy, folder: Path, processes: int = 1, **settings: object) -> None:
    outcome = toy(folder, processes, **WATCHED | settings)
    assert outcome.codes == [0] * processes, outcome.output


def goes_on_exactly(toy: Toy, folder: Path, processes: int, settings: dict[str, object]) -> None:
    reference, killed = folder / "reference", folder / "killed"
    run_to_the_end(toy, reference, processes, **settings)
    outcome = toy(killed, processes, signal="SIGKILL:13", **WATCHED | settings)
    assert -9 in outcome.codes
    outcome = toy(killed, processes, **WATCHED | settings)
    assert outcome.codes == [0] * processes, outcome.output
    assert f"Resuming from step 10 of {killed}." in outcome.output
    assert_same_run(killed, reference)


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_killed_run_goes_on_bit_by_bit(toy: Toy, tmp_path: Path, settings: dict[str, object]) -> None:
    goes_on_exactly(toy, tmp_path, 1, settings)


def test_two_processes_go_on_bit_by_bit(toy: Toy, tmp_path: Path) -> None:
    goes_on_exactly(toy, tmp_path, 2, {"batch_size": 2, "dropout": 0.3})


def test_two_processes_that_share_the_model_go_on_bit_by_bit(toy: Toy, tmp_path: Path) -> None:
    goes_on_exactly(toy, tmp_path, 2, {"batch_size": 2, "dropout": 0.3, "parallel": "fsdp2", "precision": "bf16"})


@pytest.mark.slow
@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_two_processes_go_on_bit_by_bit_with(toy: Toy, tmp_path: Path, settings: dict[str, object]) -> None:
    goes_on_exactly(toy, tmp_path, 2, settings)


@pytest.mark.parametrize("place", ["files", "manifest", "rename", "best"])
def test_run_killed_while_it_writes_goes_on_from_the_checkpoint_before(toy: Toy, tmp_path: Path, place: str) -> None:
    settings = {"dropout": 0.3, **WATCHED}
    run_to_the_end(toy, tmp_path / "reference", **settings)
    assert toy(tmp_path / "killed", die_in_checkpoint=f"{place}:10", **settings).codes == [-9]
    unfinished = tmp_path / "killed" / (".best.unfinished" if place == "best" else "checkpoints/.unfinished-00000010")
    assert unfinished.exists()
    outcome = toy(tmp_path / "killed", **settings)
    assert f"Resuming from step 5 of {tmp_path / 'killed'}." in outcome.output
    assert_same_run(tmp_path / "killed", tmp_path / "reference")
    checkpoints = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert checkpoints == ["step-00000015", "step-00000020"]
    assert not unfinished.exists()


def test_run_killed_again_and_again_goes_on_bit_by_bit(toy: Toy, tmp_path: Path) -> None:
    settings = {"dropout": 0.3, "weighting": "grad_norm"}
    run_to_the_end(toy, tmp_path / "reference", **settings)
    for step in (3, 6, 9, 16):
        assert toy(tmp_path / "killed", signal=f"SIGKILL:{step}", **WATCHED | settings).codes == [-9]
    run_to_the_end(toy, tmp_path / "killed", **settings)
    assert_same_run(tmp_path / "killed", tmp_path / "reference")


def test_settings_that_may_change_do_not_change_what_is_computed(toy: Toy, tmp_path: Path) -> None:
    run_to_the_end(toy, tmp_path / "reference", dropout=0.3)
    changed = {"dropout": 0.3, "log_every": 4}
    settings = {"dropout": 0.3, "log_every": 20, "workers": 1}
    assert toy(tmp_path / "killed", signal="SIGKILL:13", **settings).codes == [-9]
    outcome = toy(tmp_path / "killed", **changed)
    assert outcome.codes == [0], outcome.output
    # The first line takes in the ten steps that were not in a line of twenty yet.
    train = lines(tmp_path / "killed", "train")
    assert [line["step"] for line in train] == [11, 15, 19, 20]
    assert digests(tmp_path / "killed") == digests(tmp_path / "reference")
    assert lines(tmp_path / "killed", "held_out")[-1] == lines(tmp_path / "reference", "held_out")[-1]


def test_finished_run_gives_its_result_again(toy: Toy, tmp_path: Path) -> None:
    run_to_the_end(toy, tmp_path / "run")
    before = lines(tmp_path / "run")
    outcome = toy(tmp_path / "run", **WATCHED)
    assert outcome.codes == [0]
    assert f"Resuming from step {STEPS}" in outcome.output
    assert lines(tmp_path / "run") == before


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_run_goes_on_on_another_number_of_processes(toy: Toy, tmp_path: Path, before: int, after: int) -> None:
    reference, moved = tmp_path / "reference", tmp_path / "moved"
    run_to_the_end(toy, reference, batch_size=8)
    assert -9 in toy(moved, before, signal="SIGKILL:13", batch_size=8 // before, **WATCHED).codes
    run_to_the_end(toy, moved, after, batch_size=8 // after)
    assert_same_curve(moved, reference)


def test_run_of_sharded_models_goes_on_on_another_number_of_processes(toy: Toy, tmp_path: Path) -> None:
    settings = {"parallel": "fsdp2", "average": "none"}
    run_to_the_end(toy, tmp_path / "reference", 2, batch_size=6, **settings)
    assert -9 in toy(tmp_path / "moved", 2, signal="SIGKILL:13", batch_size=6, **WATCHED | settings).codes
    run_to_the_end(toy, tmp_path / "moved", 3, batch_size=4, **settings)
    assert_same_curve(tmp_path / "moved", tmp_path / "reference")


def test_another_number_of_samples_a_step_is_refused(toy: Toy, tmp_path: Path) -> None:
    assert toy(tmp_path / "run", signal="SIGKILL:6").codes == [-9]
    outcome = toy(tmp_path / "run", processes=2)
    assert outcome.codes == [1, 1]
    assert (
        "ValueError: Expected 4 samples per step, as in the run so far, got 8: batch_size 4 x accumulation 1 x "
        "2 processes. Choose the batch_size that fits this number of processes."
    ) in outcome.output
