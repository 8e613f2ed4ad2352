import io
import json
import pickle
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.processes import Toy
from tests.helpers.toy import assert_same_run, lines

SETTINGS = {"dropout": 0.3}


@pytest.fixture(scope="module")
def reference(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "reference"
    assert toy(folder, **SETTINGS).codes == [0]
    return folder


@pytest.fixture(scope="module")
def killed_run(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of the steps 10 and 15."""
    folder = tmp_path_factory.mktemp("checkpoint") / "killed"
    assert toy(folder, signal="SIGKILL:17", **SETTINGS).codes == [-9]
    return folder


@pytest.fixture
def killed(killed_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(killed_run, tmp_path / "run")


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def truncate(folder: Path) -> str:
    file = folder / "optimizer.bin"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(100)
    return f"optimizer.bin has 100 of {size} bytes"


def spoil(folder: Path) -> str:
    (file,) = folder.glob("*model*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return f"{file.name} has other content than was written"


def remove_file(folder: Path) -> str:
    (folder / "random_states_0.pkl").unlink()
    return "random_states_0.pkl is missing"


def remove_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return f"its manifest cannot be read ([Errno 2] No such file or directory: '{folder / 'manifest.json'}')"


def truncate_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{\n "custom')
    return "its manifest cannot be read (Unterminated string starting at: line 2 column 2 (char 3))"


@pytest.mark.parametrize("damage", [truncate, spoil, remove_file, remove_manifest, truncate_manifest])
def test_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(
    toy: Toy, killed: Path, reference: Path, damage: Callable[[Path], str]
) -> None:
    what = damage(checkpoint(killed, 15))
    outcome = toy(killed, **SETTINGS)
    assert outcome.output.splitlines()[:2] == [
        f"The checkpoint {checkpoint(killed, 15)} is damaged: {what}. Resuming from step 10.",
        f"Resuming from step 10 of {killed}.",
    ]
    assert_same_run(killed, reference)
    assert names(killed) == ["step-00000015", "step-00000020"]


def test_run_resumes_from_a_chosen_step_once_and_deletes_what_was_later(
    toy: Toy, killed: Path, reference: Path
) -> None:
    outcome = toy(killed, resume_from=10, signal="SIGTERM:12", **SETTINGS)
    assert outcome.output.splitlines()[:2] == [
        "Later checkpoints and metrics than those of step 10 are deleted.",
        f"Resuming from step 10 of {killed}.",
    ]
    assert names(killed) == ["resumed-from", "step-00000010", "step-00000012"]
    assert max(line["step"] for line in lines(killed)) <= 12
    outcome = toy(killed, resume_from=10, **SETTINGS)  # as when a job is queued again
    assert outcome.output.splitlines()[0] == f"Resuming from step 12 of {killed}."
    assert_same_run(killed, reference)


def test_chosen_step_without_a_checkpoint_is_named(toy: Toy, killed: Path, tmp_path: Path) -> None:
    outcome = toy(killed, resume_from=7, **SETTINGS)
    assert outcome.codes == [1]
    folder = killed / "checkpoints"
    assert outcome.output.splitlines()[-1].endswith(
        f"CheckpointError: Expected a checkpoint of step 7 in {folder}, got those of [10, 15]."
    )
    assert names(killed) == ["step-00000010", "step-00000015"]
    what = truncate(checkpoint(killed, 15))
    outcome = toy(killed, resume_from=15, **SETTINGS)
    assert outcome.output.splitlines()[-1].endswith(
        f"got those of [10, 15]. The checkpoint {checkpoint(killed, 15)} is damaged: {what}."
    )
    outcome = toy(tmp_path / "new", resume_from=15, **SETTINGS)
    assert outcome.output.splitlines()[-1].endswith(
        f"Expected a checkpoint of step 15 in {tmp_path / 'new/checkpoints'}, got those of no step."
    )


def drop_a_line(metrics: Path) -> None:
    _, *others = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(others))


def change_a_digit(metrics: Path) -> None:
    metrics.write_text(metrics.read_text().replace('"step": 2,', '"step": 3,', 1))


def delete_the_file(metrics: Path) -> None:
    metrics.unlink()


@pytest.mark.parametrize("damage", [drop_a_line, change_a_digit, delete_the_file])
def test_lost_lines_of_the_record_are_noticed(
    toy: Toy, killed: Path, reference: Path, damage: Callable[[Path], None]
) -> None:
    damage(killed / "metrics.jsonl")
    outcome = toy(killed, **SETTINGS)
    assert outcome.codes == [0]
    assert (
        f"Lines of {killed / 'metrics.jsonl'} from before step 15 were lost or changed since the checkpoint. The run "
        "resumes, and its record has a gap."
    ) in outcome.output
    assert lines(killed)[-1] == lines(reference)[-1]


def test_run_whose_checkpoints_are_all_damaged_ends_with_an_error(toy: Toy, killed: Path) -> None:
    damages = [truncate(checkpoint(killed, step)) for step in (15, 10)]
    before = lines(killed)
    outcome = toy(killed, **SETTINGS)
    assert outcome.codes == [1]
    assert outcome.output.splitlines()[-1].endswith(
        f"CheckpointError: The checkpoint {checkpoint(killed, 15)} is damaged: {damages[0]}. "
        f"The checkpoint {checkpoint(killed, 10)} is damaged: {damages[1]}. "
        "None is intact: start again in an empty folder."
    )
    assert lines(killed) == before


def test_damaged_checkpoint_of_a_later_step_does_not_outlive_the_next_one(toy: Toy, killed: Path) -> None:
    truncate(checkpoint(killed, 15))
    assert toy(killed, signal="SIGTERM:12", **SETTINGS).codes == [143]
    assert names(killed) == ["step-00000010", "step-00000012"]


def test_the_two_newest_checkpoints_are_kept(reference: Path) -> None:
    assert names(reference) == ["step-00000015", "step-00000020"]


def test_what_a_killed_process_left_unfinished_is_removed(toy: Toy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert toy(run, die_in_checkpoint="rename:10").codes == [-9]
    assert names(run) == [".unfinished-00000010", "step-00000005"]
    assert toy(run, checkpoint_every=9).codes == [0]
    assert names(run) == ["step-00000018", "step-00000020"]


def test_full_disk_costs_checkpoints_but_not_the_run_until_its_end(toy: Toy, tmp_path: Path, reference: Path) -> None:
    run = tmp_path / "run"
    outcome = toy(run, full="10000:8", **SETTINGS)
    assert outcome.codes == [1]
    for step in (10, 15, 20):
        assert f"The checkpoint of step {step} could not be written to {run / 'checkpoints'} (" in outcome.output
    assert outcome.output.count("Training continues; make room, or the run ends with an error.") == 2
    assert "CheckpointError: The checkpoint of step 20" in outcome.output
    assert "; the checkpoint of step 5 is intact." in outcome.output.splitlines()[-1]
    assert names(run) == ["step-00000005"]
    assert lines(run, "train") == lines(reference, "train")
    outcome = toy(run, **SETTINGS)
    assert f"Resuming from step 5 of {run}." in outcome.output
    assert_same_run(run, reference)


def test_lines_that_waited_are_written_once_by_two_ranks(toy: Toy, tmp_path: Path) -> None:
    settings = {"processes": 2, "batch_size": 2}
    assert toy(tmp_path / "reference", **settings).codes == [0, 0]
    # The checkpoint of step 10 fits, the metrics do not; what goes on from it has lines that wait.
    outcome = toy(tmp_path / "run", full="4000:6:until:11", signal="SIGKILL:12", **settings)
    assert -9 in outcome.codes
    assert toy(tmp_path / "run", **settings).codes == [0, 0]
    assert lines(tmp_path / "run") == lines(tmp_path / "reference")


def test_full_disk_costs_no_line_and_no_model(toy: Toy, tmp_path: Path, reference: Path) -> None:
    """No file may grow beyond 1,500 bytes from step 8 to 12: no metrics, no checkpoint, no best model."""
    run = tmp_path / "run"
    outcome = toy(run, full="1500:8:until:12", trackers="none", **SETTINGS)
    assert outcome.codes == [0], outcome.output
    assert f"The metrics of step 8 could not be written to {run / 'metrics.jsonl'} (" in outcome.output
    assert outcome.output.count("They are kept in memory and in the checkpoints.") == 1
    assert f"The model of step 10 could not be written to {run / 'best'} (" in outcome.output
    assert "Training continues; the best model before is intact." in outcome.output
    expected = lines(reference)
    for line in expected:
        line["best"] = line.get("best") and line["step"] != 10
    got = lines(run)
    for line in got:
        line["best"] = line.get("best")
    assert got == expected
    assert (run / "best" / "evaluation.json").exists()


def test_run_that_ends_on_a_full_disk_says_what_is_missing_and_goes_on(
    toy: Toy, tmp_path: Path, reference: Path
) -> None:
    run = tmp_path / "run"
    outcome = toy(run, full="3000:20", **SETTINGS)
    assert outcome.codes == [1]
    assert f"The metrics of step 20 could not be written to {run / 'metrics.jsonl'} (" in outcome.output
    assert toy(run, **SETTINGS).codes == [0]
    assert_same_run(run, reference)


def test_full_disk_on_one_of_two_ranks_is_said_on_both(toy: Toy, tmp_path: Path) -> None:
    outcome = toy(tmp_path / "run", processes=2, full="10000:8:1")
    assert outcome.codes == [1, 1]
    assert outcome.output.count("Training continues; make room, or the run ends with an error.") == 2
    assert "(another rank failed); the checkpoint of step 5 is intact." in outcome.output
    assert names(tmp_path / "run") == ["step-00000005"]


def test_two_ranks_fall_back_together(toy: Toy, tmp_path: Path) -> None:
    settings = {"processes": 2, "dropout": 0.3}
    assert toy(tmp_path / "reference", **settings).codes == [0, 0]
    assert -9 in toy(tmp_path / "run", signal="SIGKILL:17", **settings).codes
    truncate(checkpoint(tmp_path / "run", 15))
    outcome = toy(tmp_path / "run", **settings)
    assert outcome.output.count("Resuming from step 10.") == 1
    assert_same_run(tmp_path / "run", tmp_path / "reference")


def test_random_numbers_are_restored(toy: Toy, killed: Path, reference: Path) -> None:
    """Accelerate says nothing if it cannot restore them."""
    toy(killed, **SETTINGS)
    files = [checkpoint(run, 20) / "random-0.pt" for run in (killed, reference)]
    resumed, straight = (torch.load(file, weights_only=True)["torch"] for file in files)
    assert torch.equal(resumed, straight)
    assert not torch.equal(straight, torch.Generator().manual_seed(0).get_state())


def rewrite(checkpoint: Path, file: str, content: bytes) -> None:
    """Change a file of a checkpoint together with its size and checksum."""
    (checkpoint / file).write_bytes(content)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][file] = [len(content), zlib.crc32(content)]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("as_torch_saves", [False, True])
def test_no_file_of_a_checkpoint_executes_code(toy: Toy, killed: Path, tmp_path: Path, as_torch_saves: bool) -> None:
    exploded = tmp_path / "exploded"
    buffer = io.BytesIO()
    if as_torch_saves:
        torch.save(Bomb(exploded), buffer)
    else:
        pickle.dump(Bomb(exploded), buffer)
    files = [path.name for path in checkpoint(killed, 15).iterdir() if path.name != "manifest.json"]
    assert {"pytorch_model.bin", "optimizer.bin", "state.pt", "random-0.pt"} <= set(files)
    for file in files:
        run = tmp_path / file
        shutil.copytree(killed, run)
        rewrite(checkpoint(run, 15), file, buffer.getvalue())
        outcome = toy(run, **SETTINGS)
        assert not exploded.exists(), file
        if file != "random_states_0.pkl":  # of accelerate, which we do not use
            assert outcome.codes == [1], file
            assert f"CheckpointError: The checkpoint {checkpoint(run, 15)} is not one of this model" in outcome.output


def test_random_state_that_cannot_be_restored_is_an_error(toy: Toy, killed: Path) -> None:
    state = torch.load(checkpoint(killed, 15) / "random-0.pt", weights_only=True)
    state["torch"] = state["torch"][:100]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    rewrite(checkpoint(killed, 15), "random-0.pt", buffer.getvalue())
    assert toy(killed, **SETTINGS).codes == [1]


def test_checkpoint_of_another_run_is_not_resumed(toy: Toy, killed: Path, reference: Path) -> None:
    shutil.rmtree(checkpoint(killed, 15))
    shutil.copytree(checkpoint(reference, 15), checkpoint(killed, 15))
    outcome = toy(killed, **SETTINGS)
    assert "belongs to run" in outcome.output
    assert "Resuming from step 10." in outcome.output
    assert_same_run(killed, reference)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"format": 2, "run": "x", "ranks": 1, "files": [1]}', "{"])
def test_manifest_of_another_shape_is_a_damaged_checkpoint(
    toy: Toy, killed: Path, reference: Path, content: str
) -> None:
    (checkpoint(killed, 15) / "manifest.json").write_text(content)
    assert "Resuming from step 10." in toy(killed, **SETTINGS).output
    assert_same_run(killed, reference)


def test_stray_entries_among_the_checkpoints_are_ignored(toy: Toy, killed: Path, reference: Path) -> None:
    (killed / "checkpoints/step-00000099").write_text("a file")
    (killed / "checkpoints/step-new").mkdir()
    (killed / "checkpoints/notes.txt").touch()
    assert toy(killed, **SETTINGS).codes == [0]
    assert_same_run(killed, reference)
