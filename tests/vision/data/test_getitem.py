from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import taskrobust.vision.data as module
from taskrobust.commands.shards import shards as pack_shards
from taskrobust.synthetic.rooms import generate_scenes
from taskrobust.vision.data import (
    Cifar10,
    ImageFolders,
    ImageMaps,
    ImageNet,
    ImageNetS50,
    Images,
    ImageShards,
    PairedFolders,
    Scenes,
)
from taskrobust.vision.data.base import MapFile
from taskrobust.vision.modalities import Modality, Rgb
from taskrobust.vision.transforms.crops import JointCrop

RGB: dict[str, Modality] = {"rgb": Rgb()}
CROP = JointCrop(16)


class Photos(ImageMaps):
    """A data set of one's own, with the three methods that it needs."""

    name = "photos"

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(RGB, CROP, on_error="raise")
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def files(self, index: int) -> Iterator[MapFile]:
        yield MapFile("rgb", str(self.paths[index]), str(self.paths[index]))

    def label(self, index: int) -> int:
        return index % 2


def photos(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{class_}/{number}.png" for class_ in ("cat", "dog") for number in range(2)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    return paths


def image_folders(root: Path) -> Images:
    photos(root / "train/rgb")
    return ImageFolders(RGB, CROP, root=root)


def paired_folders(root: Path) -> Images:
    photos(root / "rgb")
    return PairedFolders(RGB, CROP, folders={"rgb": root / "rgb"})


def image_shards(root: Path) -> Images:
    photos(root / "train/rgb")
    pack_shards(root / "train", root / "shards", samples_per_shard=3)
    return ImageShards(RGB, CROP, folder=root / "shards")


def imagenet(root: Path) -> Images:
    photos(root / "train")
    return ImageNet(RGB, CROP, root=root)


def imagenet_s50(root: Path) -> Images:
    photos(root / "train-semi")
    return ImageNetS50(RGB, CROP, root=root)


def cifar10(root: Path) -> Images:
    content = BytesIO()
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(content, "png")
    rows = [{"bytes": content.getvalue(), "path": None}] * 4
    pq.write_table(pa.table({"img": rows, "label": [3, 1, 4, 1]}), root / "train.parquet")
    return Cifar10(RGB, CROP, root=root)


def scenes(root: Path) -> Images:
    generate_scenes(root / "rooms", "train", 4, size=24)
    return Scenes(RGB, CROP, folder=root / "rooms")


def own(root: Path) -> Images:
    return Photos(photos(root))


MAKERS: dict[type[Images], Callable[[Path], Images]] = {
    ImageFolders: image_folders,
    PairedFolders: paired_folders,
    ImageShards: image_shards,
    ImageNet: imagenet,
    ImageNetS50: imagenet_s50,
    Cifar10: cifar10,
    Scenes: scenes,
    Photos: own,
}


@pytest.mark.parametrize("class_", MAKERS, ids=lambda class_: class_.__name__)
def test_an_index_gives_one_sample_as_the_transforms_deliver_it(class_: type[Images], tmp_path: Path) -> None:
    data = MAKERS[class_](tmp_path)
    assert type(data) is class_
    assert len(data) == 4
    for index in range(4):
        ((_, expected),) = data.__getitems__([(index, 0)])
        sample = data[index]
        assert list(sample) == ["rgb", "label"]
        assert sample["rgb"].shape == (3, 16, 16)
        assert all(torch.equal(sample[name], expected[name]) for name in expected)
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"Expected an index from 0 to 3, got {index}"):
            data[index]


def test_all_data_sets_are_tested() -> None:
    public = {getattr(module, name) for name in module.__all__}
    data_sets = {value for value in public if isinstance(value, type) and issubclass(value, Images)}
    assert data_sets - {Images, ImageMaps} == MAKERS.keys() - {Photos}
