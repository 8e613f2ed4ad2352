import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskrobust._io.settings import changeable
from taskrobust.training.config import Resume, RunConfig
from taskrobust.training.run_folder import RunFolder
from tests.helpers.processes import Toy

CONFIG: dict[str, Any] = {"output": "runs/a", "loop": {"steps": 10, "log_every": 2}, "weighting": {"alpha": 1.0}}


def changed(**loop: object) -> dict[str, Any]:
    return CONFIG | {"loop": CONFIG["loop"] | loop}


def open_folder(path: Path, settings: dict[str, Any], resume: Resume = "auto", main: bool = True) -> RunFolder:
    return RunFolder(path, "toy", settings, changeable(RunConfig, settings) | {"output"}, resume, main)


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_new_folder_gets_the_configuration(tmp_path: Path, resume: Any) -> None:
    open_folder(tmp_path / "a" / "run", CONFIG, resume)
    written = yaml.safe_load((tmp_path / "a" / "run" / "config.yaml").read_text())
    assert written == CONFIG
    assert {path.name for path in (tmp_path / "a" / "run").iterdir()} == {"config.yaml", "run.json", ".lock"}


def test_run_of_another_configuration_is_refused_and_kept(tmp_path: Path) -> None:
    open_folder(tmp_path, CONFIG)
    other = changed(steps=20) | {"weighting": {"temperature": 2.0}}
    message = (
        f"{tmp_path} was made with other settings: loop.steps is 10 there and 20 here; "
        "weighting.alpha is 1.0 there and None here; weighting.temperature is None there and 2.0 here. "
        "Choose another folder, or the settings with which this one was made."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        open_folder(tmp_path, other)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == CONFIG


@pytest.mark.parametrize("name", ["log_every", "checkpoint_every", "workers", "batch_size"])
def test_settings_of_how_a_run_is_watched_may_change(tmp_path: Path, name: str) -> None:
    open_folder(tmp_path, CONFIG)
    open_folder(tmp_path, changed(**{name: 7}) | {"output": "elsewhere", "resume": "auto"})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["loop"][name] == 7


def test_folder_of_an_earlier_version_or_another_command_is_refused(tmp_path: Path) -> None:
    open_folder(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"^Expected a run of pretrain-mae in .*, got one of toy\."):
        RunFolder(tmp_path, "pretrain-mae", CONFIG)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=r"^Expected a run folder of format 2, .* another version"):
        open_folder(tmp_path, CONFIG)


def test_never_wants_an_empty_folder(tmp_path: Path) -> None:
    open_folder(tmp_path, CONFIG, "never")
    message = f"Expected an empty or new run folder with --resume never, {tmp_path} holds files."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        open_folder(tmp_path, CONFIG, "never")


def test_folder_of_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    message = f"Expected a run folder or an empty one, {tmp_path} holds other files and no config.yaml."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        open_folder(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_folder_of_a_run_that_was_killed_at_its_first_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.unfinished").write_text("loop:\n  st")
    open_folder(tmp_path, CONFIG, "never")
    assert (tmp_path / "config.yaml").exists()


def test_other_ranks_do_not_stumble_over_what_the_main_one_writes(tmp_path: Path) -> None:
    open_folder(tmp_path, CONFIG, "never", main=True)
    open_folder(tmp_path, CONFIG, "never", main=False)


def test_a_setting_that_an_earlier_version_did_not_have_has_its_default(tmp_path: Path) -> None:
    open_folder(tmp_path, CONFIG)
    newer = CONFIG | {"tasks": "raw", "weighting": {"alpha": 1.0, "relative": False}}
    defaults = {"tasks": "raw", "weighting.relative": False, "weighting.hard": True}

    RunFolder(tmp_path, "toy", newer, {"output"}, defaults=defaults).release()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == newer
    with pytest.raises(ValueError, match=r"tasks is 'raw' there and 'other' here"):
        RunFolder(tmp_path, "toy", newer | {"tasks": "other"}, {"output"}, defaults=defaults)


def test_a_setting_that_is_not_a_number_is_the_one_that_it_was(tmp_path: Path) -> None:
    open_folder(tmp_path, changed(threshold=float("nan")))
    open_folder(tmp_path, changed(threshold=float("nan")))


def test_second_process_in_a_run_folder_is_refused_and_writes_nothing(toy: Toy, tmp_path: Path) -> None:
    first = toy.start(tmp_path / "run", pause=0.1)
    while not (tmp_path / "run/metrics.jsonl").exists():
        assert first[0].is_alive()
        time.sleep(0.01)
    before = (tmp_path / "run/config.yaml").stat().st_mtime_ns, (tmp_path / "run/run.json").stat().st_mtime_ns
    outcome = toy(tmp_path / "run", pause=0.1)
    assert before == ((tmp_path / "run/config.yaml").stat().st_mtime_ns, (tmp_path / "run/run.json").stat().st_mtime_ns)
    assert outcome.codes == [1]
    assert (
        f"Expected to be alone in the run folder {tmp_path / 'run'}, but another process is training" in outcome.output
    )
    first[0].join(60)
    assert first[0].exitcode == 0
