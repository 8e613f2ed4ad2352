"""What results call the data that they were measured on."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from taskrobust.commands.shards import shards as pack_shards
from taskrobust.synthetic.rooms import generate_scenes
from taskrobust.vision.data import Cifar10, ImageFolders, ImageNet, ImageNetS50, ImageShards, PairedFolders, Scenes
from taskrobust.vision.modalities import Depth, Rgb
from taskrobust.vision.transforms.crops import CenterCrop

RGB = {"rgb": Rgb()}
CROP = CenterCrop(16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """nyuv2/val/rgb/all/0.png and nyuv2/val/depth/all/0.png."""
    for modality, shape in (("rgb", (16, 16, 3)), ("depth", (16, 16))):
        path = tmp_path / "nyuv2/val" / modality / "all/0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.ones(shape, dtype=np.uint8)).save(path)
    return tmp_path / "nyuv2"


def test_folders_are_called_by_their_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ImageFolders(RGB, CROP, root=folder, split="val").name == "nyuv2"
    assert ImageNet(RGB, CROP, root=folder / "val", split="rgb").name == "val"
    assert ImageNetS50(RGB, CROP, root=folder / "val", split="rgb").name == "val"
    folders = {name: folder / "val" / name for name in ("rgb", "depth")}
    assert PairedFolders(RGB | {"depth": Depth()}, CROP, folders=folders).name == "val"
    monkeypatch.chdir(folder)
    assert ImageFolders(RGB, CROP, root=Path(), split="val").name == "nyuv2"


def test_shards_are_called_by_their_folder_and_the_one_around_it(folder: Path, tmp_path: Path) -> None:
    pack_shards(folder / "val", tmp_path / "shards/val")
    images = ImageShards(RGB, CROP, folder=tmp_path / "shards/val")
    assert images.name == "shards/val"


def test_cifar10_is_called_by_its_folder(tmp_path: Path) -> None:
    content = BytesIO()
    Image.new("RGB", (32, 32)).save(content, "png")
    (tmp_path / "cifar10").mkdir()
    table = pa.table({"img": [{"bytes": content.getvalue(), "path": None}], "label": [3]})
    pq.write_table(table, tmp_path / "cifar10/test.parquet")
    assert Cifar10(RGB, CROP, root=tmp_path / "cifar10", split="test").name == "cifar10"


def test_rooms_are_called_by_their_domain(tmp_path: Path) -> None:
    generate_scenes(tmp_path / "rooms", "test", 1, 16, domain="shifted")
    assert Scenes(RGB, CROP, folder=tmp_path / "rooms").name == "generated rooms (shifted)"
