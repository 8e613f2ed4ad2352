from pathlib import Path

import pytest

from taskrobust._io.paths import config_names, find_config


def test_a_configuration_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "configs/nlp/demo.yaml" in config_names()
    for name in config_names():
        assert find_config(name).read_text()


def test_a_file_at_the_path_comes_before_the_configuration_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "configs/nlp/demo.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("loop: {steps: 3}\n")

    assert find_config("configs/nlp/demo.yaml").resolve() == own
    assert find_config(own) == own


def test_a_misspelled_configuration_is_answered_with_where_it_looked_and_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"did you mean configs/nlp/demo\.yaml\?") as error:
        find_config("configs/nlp/dmo.yaml")
    assert str(Path.cwd() / "configs/nlp/dmo.yaml") in str(error.value)
    assert str(find_config("configs/nlp/demo.yaml").parents[1]) in str(error.value)


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(ValueError, match=r"use a path, or one of configs/nlp/books-small\.yaml, "):
        find_config("/nowhere/at-all.json")
