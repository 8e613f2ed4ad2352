"""Run folders of this and of earlier versions, in tests/training/stored, which this version must resume.

When the format of checkpoints or run folders changes, store another one:

python -m tests.helpers.toy tests/training/stored/format-N dropout=0.3 weighting=grad_norm smoothing=0.5 trackers=none \
    signal=SIGTERM:10
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.processes import Toy
from tests.helpers.toy import _numbers, _words, lines

STORED = sorted((Path(__file__).parent / "stored").iterdir())
SETTINGS = {"dropout": 0.3, "weighting": "grad_norm", "smoothing": 0.5, "trackers": "none"}
TOLERANCE = 1e-3  # between kinds of CPUs


@pytest.fixture(scope="module")
def reference(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without an interruption, on this machine."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert toy(folder, **SETTINGS).codes == [0]
    return folder


@pytest.mark.parametrize("stored", STORED, ids=lambda path: path.name)
def test_a_stored_run_resumes_to_the_same_curve(toy: Toy, tmp_path: Path, reference: Path, stored: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stored, run)

    outcome = toy(run, **SETTINGS)

    assert outcome.codes == [0], outcome.output
    assert outcome.output.splitlines()[0] == f"Resuming from step 10 of {run}."
    for line, expected in zip(lines(run), lines(reference), strict=True):
        assert dict(_words(line)) == dict(_words(expected))
        assert dict(_numbers(line)) == pytest.approx(dict(_numbers(expected)), rel=TOLERANCE, abs=TOLERANCE)


def test_the_newest_stored_run_has_the_format_of_this_version(reference: Path) -> None:
    numbers = [
        json.loads(next(folder.glob("checkpoints/*/manifest.json")).read_text())["format"]
        for folder in (STORED[-1], reference)
    ]
    assert numbers[0] == numbers[1] == int(STORED[-1].name.removeprefix("format-"))


def test_a_checkpoint_of_another_format_is_refused_by_its_number(toy: Toy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(STORED[-1], run)
    manifest = next(run.glob("checkpoints/*/manifest.json"))
    manifest.write_text(manifest.read_text().replace('"format": 3', '"format": 2'))

    outcome = toy(run, **SETTINGS)

    assert outcome.codes == [1]
    assert "it has format 2 and belongs to run" in outcome.output.splitlines()[-1]
