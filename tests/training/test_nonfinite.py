from pathlib import Path

import pytest
import torch

from taskrobust.training.data import GlobalBatchSampler
from tests.helpers.processes import Toy
from tests.helpers.toy import SAMPLES, assert_same_run, digests, lines

STEP = 13


def spoiled_key(batch_size: int = 4) -> str:
    """The key of a sample with the task "hard" that is drawn in step 13."""
    batches = iter(GlobalBatchSampler(SAMPLES, batch_size, seed=0))
    for _ in range(STEP):
        keys = next(batches)
    index, epoch = next(key for key in keys if key[0] % 2)
    return f"{index},{epoch}"


@pytest.mark.parametrize("processes", [1, 2])
def test_run_ends_with_an_error_that_names_the_task_and_keeps_its_last_checkpoint(
    toy: Toy, tmp_path: Path, processes: int
) -> None:
    settings = {"processes": processes, "batch_size": 4 // processes, "spoiled": spoiled_key()}
    error = "NonFiniteLossError: Expected finite losses, got NaN, infinity or a count below 0 for ['hard']."
    outcome = toy(tmp_path / "run", **settings)
    assert outcome.codes == [1] * processes
    assert outcome.output.count(error) == processes
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [2, 4, 6, 8, 10, 12]
    outcome = toy(tmp_path / "run", **settings)
    assert f"Resuming from step 10 of {tmp_path / 'run'}." in outcome.output
    assert outcome.output.count(error) == processes


RUNS = {
    "one process": {},
    "two processes": {"processes": 2, "batch_size": 2},
    "a window": {"accumulation": 2, "batch_size": 2, "clip_norm": 1.0},
    "a window of two passes": {"accumulation": 2, "batch_size": 2, "window_weights": "two_pass"},
    "GradNorm with workers": {"weighting": "grad_norm", "workers": 1},
    "uncertainty": {"weighting": "uncertainty"},
}


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_skipped_step_leaves_everything_as_it_was_and_is_counted(
    toy: Toy, tmp_path: Path, settings: dict[str, object]
) -> None:
    outcome = toy(tmp_path / "run", spoiled=spoiled_key(), on_nonfinite="skip", log_every=1, **settings)
    assert outcome.codes == [0] * len(outcome.codes), outcome.output
    parameters = digests(tmp_path / "run")
    assert [step for step in range(2, 21) if parameters[step] == parameters[step - 1]] == [STEP]
    train = lines(tmp_path / "run", "train")
    assert [line["skipped"] for line in train] == [0] * (STEP - 1) + [1] * (21 - STEP)
    skipped = train[STEP - 1]
    assert skipped["loss"] is None
    assert skipped["worst_task"] is None
    assert set(skipped["risks"].values()) == set(skipped["weights"].values()) == {None}
    optimizer = torch.load(tmp_path / "run" / "checkpoints" / "step-00000020" / "optimizer.bin")
    assert {float(state["step"]) for state in optimizer["state"].values()} == {19.0}
    for state in optimizer["state"].values():
        assert state["exp_avg"].isfinite().all()


def test_lines_are_means_over_the_steps_that_were_taken(toy: Toy, tmp_path: Path) -> None:
    settings = {"spoiled": spoiled_key(), "on_nonfinite": "skip"}
    toy(tmp_path / "by one", log_every=1, **settings)
    toy(tmp_path / "by two", log_every=2, **settings)
    by_one, by_two = lines(tmp_path / "by one", "train"), lines(tmp_path / "by two", "train")
    assert by_two[STEP // 2]["step"] == STEP + 1
    assert by_two[STEP // 2]["loss"] == by_one[STEP]["loss"]
    assert by_two[STEP // 2]["risks"] == by_one[STEP]["risks"]


def test_run_with_a_skipped_step_goes_on_bit_by_bit(toy: Toy, tmp_path: Path) -> None:
    settings = {"spoiled": spoiled_key(), "on_nonfinite": "skip", "weighting": "grad_norm", "log_every": 4}
    toy(tmp_path / "reference", **settings)
    for step in (14, 17):
        assert toy(tmp_path / "killed", signal=f"SIGKILL:{step}", **settings).codes == [-9]
    assert toy(tmp_path / "killed", **settings).codes == [0]
    assert_same_run(tmp_path / "killed", tmp_path / "reference")
