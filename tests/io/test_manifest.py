from pathlib import Path

import pytest

from taskrobust._io.manifest import Manifest
from taskrobust._io.settings import check_same_settings, differences

THINGS = Manifest(file="things.json", kind="things", format=3, command="make --output")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    THINGS.write(tmp_path, {"seed": 1}, complete=True, number=4)
    assert THINGS.read_complete(tmp_path) == {"format": 3, "complete": True, "options": {"seed": 1}, "number": 4}


def test_a_folder_is_complete_with_all_of_its_shards(tmp_path: Path) -> None:
    assert not THINGS.is_complete(tmp_path)
    THINGS.write(tmp_path, {}, complete=False)
    assert not THINGS.is_complete(tmp_path)
    THINGS.write(tmp_path, {}, complete=True, shards=[{"file": "0"}])
    assert not THINGS.is_complete(tmp_path)
    (tmp_path / "0").touch()
    assert THINGS.is_complete(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Expected things in .*, but it holds no things.json. Use `taskrobust make --output"),
        ("{", "things.json is damaged"),
        ("[]", "Expected things of format 3, got list in .*things.json. Make things again in a new folder"),
        ('{"format": 2}', "Expected things of format 3, got 2 in"),
        ('{"format": 3, "complete": false, "options": {}}', "got an unfinished folder"),
    ],
)
def test_what_is_not_there_damaged_or_of_another_format_is_an_error(
    content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "things.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        THINGS.read_complete(tmp_path)


def test_other_options_and_other_files_are_errors(tmp_path: Path) -> None:
    assert not THINGS.is_started(tmp_path / "new", {"seed": 1})
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="Expected a new or empty folder, or things, got other files in"):
        THINGS.is_started(tmp_path, {"seed": 1})
    THINGS.write(tmp_path, {"seed": 1}, complete=False)
    assert THINGS.is_started(tmp_path, {"seed": 1})
    with pytest.raises(ValueError, match="was made with other settings: seed is 1 there and 2 here"):
        THINGS.is_started(tmp_path, {"seed": 2})


def test_differences_name_nested_settings_but_for_those_that_may_change(tmp_path: Path) -> None:
    there = {"loop": {"steps": 10, "workers": 0}, "only": 1}
    here = {"loop": {"steps": 20, "workers": 4}}
    assert differences(there, here, ["loop.workers"]) == [
        "loop.steps is 10 there and 20 here",
        "only is 1 there and None here",
    ]
    check_same_settings(tmp_path, there, there)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b"])
def test_files_outside_of_the_folder_are_an_error(tmp_path: Path, name: str) -> None:
    THINGS.write(tmp_path, {}, complete=True, shards=[{"file": name}])
    with pytest.raises(ValueError, match="which is outside of the folder"):
        THINGS.read_complete(tmp_path)
