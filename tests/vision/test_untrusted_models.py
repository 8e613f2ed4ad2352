import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Rgb


def edit(folder: Path, entry: dict[str, object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["modalities"][0] |= entry
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_imports_nothing_beyond_the_package(
    small_mae: Callable[..., MultiModalMae], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evilmod.py").write_text("from pathlib import Path\nPath('exploded').touch()\nE = dict\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small_mae().save_pretrained(tmp_path / "model")
    edit(tmp_path / "model", {"class_path": "evilmod:E"})
    with pytest.raises(ValueError, match=r"Expected classes of taskrobust in the configuration of a model, got"):
        MultiModalMae.from_pretrained(tmp_path / "model")
    assert not (tmp_path / "exploded").exists()
    assert "evilmod" not in sys.modules


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/b", "", ".hidden", "a b"])
def test_names_of_modalities_can_be_names_of_files(name: str) -> None:
    with pytest.raises(ValueError, match="Expected names of modalities of letters"):
        MultiModalMae({name: Rgb()}, image_size=32, patch_size=8, width=32, depth=1, heads=2, visible=4)
