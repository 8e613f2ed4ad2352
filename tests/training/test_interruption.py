import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from taskrobust.training.data import GlobalBatchSampler
from taskrobust.training.distributed import Interruption
from tests.helpers.processes import ROOT, Toy
from tests.helpers.toy import SAMPLES, assert_same_run, lines
from tests.training.test_nonfinite import spoiled_key
from tests.training.test_two_processes import command


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_run_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on_bit_by_bit(
    toy: Toy, tmp_path: Path, name: str
) -> None:
    settings = {"dropout": 0.3, "weighting": "grad_norm", "workers": 1}
    assert toy(tmp_path / "reference", **settings).codes == [0]
    outcome = toy(tmp_path / "stopped", signal=f"{name}:7", **settings)
    assert outcome.codes == [128 + signal.Signals[name]]
    said = f"Stopped after step 7 by {name}, with a checkpoint. The same command resumes."
    assert outcome.output.splitlines()[-1] == said
    outcome = toy(tmp_path / "stopped", **settings)
    assert outcome.output.splitlines()[0] == f"Resuming from step 7 of {tmp_path / 'stopped'}."
    assert_same_run(tmp_path / "stopped", tmp_path / "reference")


def key_of_a_second_epoch(step: int, batch_size: int = 4) -> str:
    """The key of a sample of a step, which is in no evaluation."""
    batches = iter(GlobalBatchSampler(SAMPLES, batch_size, seed=0))
    for _ in range(step):
        keys = next(batches)
    index, epoch = keys[0]
    assert epoch == 1
    return f"{index},{epoch}"


def test_run_whose_data_cannot_be_read_keeps_its_steps_and_goes_on_bit_by_bit(toy: Toy, tmp_path: Path) -> None:
    settings = {"dropout": 0.3, "weighting": "grad_norm"}
    assert toy(tmp_path / "reference", **settings).codes == [0]
    outcome = toy(tmp_path / "broken", broken=key_of_a_second_epoch(step=17), **settings)
    assert outcome.codes == [1]
    assert "The data of step 17 cannot be read. The same command resumes from step 16." in outcome.output
    outcome = toy(tmp_path / "broken", **settings)
    assert outcome.output.splitlines()[0] == f"Resuming from step 16 of {tmp_path / 'broken'}."
    assert_same_run(tmp_path / "broken", tmp_path / "reference")


def test_ranks_whose_data_cannot_be_read_end_without_a_checkpoint(toy: Toy, tmp_path: Path) -> None:
    outcome = toy(tmp_path / "broken", processes=2, broken=key_of_a_second_epoch(step=9, batch_size=8))
    assert 1 in outcome.codes
    assert "The same command resumes from" not in outcome.output


def test_all_ranks_stop_if_one_is_asked_to(toy: Toy, tmp_path: Path) -> None:
    settings = {"processes": 2, "dropout": 0.3}
    assert toy(tmp_path / "reference", **settings).codes == [0, 0]
    outcome = toy(tmp_path / "stopped", signal="SIGTERM:7:1", **settings)
    assert outcome.codes == [143, 143]
    assert "Stopped after step 8 by another rank, with a checkpoint. The same command resumes." in outcome.output
    assert toy(tmp_path / "stopped", **settings).codes == [0, 0]
    assert_same_run(tmp_path / "stopped", tmp_path / "reference")


def test_run_that_is_asked_to_stop_in_its_last_step_ends_as_usual(toy: Toy, tmp_path: Path) -> None:
    assert toy(tmp_path / "reference").codes == [0]
    assert toy(tmp_path / "run", signal="SIGTERM:20").codes == [0]
    assert_same_run(tmp_path / "run", tmp_path / "reference")


def test_a_hangup_stays_ignored_where_it_was() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert interruption.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_ctrl_c_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        assert not interruption.agreed(torch.device("cpu"))
        signal.raise_signal(signal.SIGINT)
        assert interruption.agreed(torch.device("cpu"))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def start(folder: Path, *launcher: str, **settings: object) -> subprocess.Popen[str]:
    """Start a slow run in a session of its own, and wait for its first line."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, *launcher, *command(folder, pause=0.2, **settings)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.1)
    return run


def members(session: int) -> list[str]:
    """The commands of the processes that are alive in a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended
            continue
    return found


def remaining(session: int) -> list[str]:
    """The members of a session that do not end within 20 s, five times what a loader's worker waits for its parent."""
    deadline = time.monotonic() + 20
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.2)
    return members(session)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to list processes from")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_outlive_a_signal_to_the_whole_process_group_and_end_with_the_run(
    toy: Toy, tmp_path: Path, number: signal.Signals
) -> None:
    run = start(tmp_path / "run", workers=2)
    os.killpg(run.pid, number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("Stopped after step ")
    assert members(run.pid) == []
    assert toy(tmp_path / "run", workers=2).codes == [0]


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["spoiled", "broken"])
def test_run_with_workers_that_meets_an_error_ends(tmp_path: Path, fault: str) -> None:
    run = start(tmp_path / "run", workers=2, **{fault: spoiled_key()})
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    error = "got NaN, infinity or a count below 0 for ['hard']" if fault == "spoiled" else "cannot be read."
    assert error in output.splitlines()[-1]
    assert remaining(run.pid) == []


@needs_proc
@pytest.mark.slow
def test_workers_of_a_run_that_was_killed_end(tmp_path: Path) -> None:
    run = start(tmp_path / "run", workers=2)
    assert len(members(run.pid)) == 3
    run.kill()
    run.communicate(timeout=60)
    assert remaining(run.pid) == []


@pytest.mark.slow
def test_torchrun_passes_the_signal_on_and_the_run_goes_on_bit_by_bit(toy: Toy, tmp_path: Path) -> None:
    settings = {"dropout": 0.3, "workers": 1}
    assert toy(tmp_path / "reference", processes=2, **settings).codes == [0, 0]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = start(tmp_path / "run", *launcher, **settings)
    run.terminate()
    output, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "by SIGTERM, with a checkpoint. The same command resumes." in output
    assert len(lines(tmp_path / "run")) < len(lines(tmp_path / "reference"))
    outcome = toy(tmp_path / "run", processes=2, **settings)
    assert "Resuming from step " in outcome.output
    assert_same_run(tmp_path / "run", tmp_path / "reference")
