from pathlib import Path

import pytest

from taskrobust._io.atomic import remove_leftovers, replacing, write_atomically


def test_a_file_takes_its_place_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another_only_when_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "model"
    with replacing(place) as unfinished:
        unfinished.mkdir()
        (unfinished / "old").touch()
    with pytest.raises(FileNotFoundError), replacing(place):
        pass
    assert [path.name for path in place.iterdir()] == ["old"]
    with replacing(place) as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [path.name for path in place.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [place]


def test_what_a_killed_process_left_is_overwritten_or_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.unfinished").mkdir()
    (tmp_path / ".b.unfinished").touch()
    write_atomically(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
