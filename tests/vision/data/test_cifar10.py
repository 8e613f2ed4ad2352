import os
import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from taskrobust.commands.shards import shards as pack_shards
from taskrobust.training.data import GlobalBatchSampler
from taskrobust.vision.data import Cifar10, ImageFolders, ImageShards, TargetCollate
from taskrobust.vision.modalities import Depth, NormRgb, Rgb
from taskrobust.vision.transforms.crops import CenterCrop

ROWS = 40
CROP = CenterCrop(32)
PIXELS = np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
LABELS = [row % 10 for row in range(ROWS)]


def png(pixels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def images() -> list[dict[str, Any]]:
    return [{"bytes": png(pixels), "path": None} for pixels in PIXELS]


def write(path: Path, columns: Mapping[str, Any] | None = None) -> Path:
    """The folder of a file with the given columns, by default those of the hub's CIFAR-10."""
    columns = columns or {"img": images(), "label": LABELS}
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return path.parent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "train.parquet")


def read(root: Path, **options: Any) -> Cifar10:
    return Cifar10({"rgb": Rgb()}, CROP, root=root, **options)


def test_samples_are_rows_with_image_and_class(root: Path) -> None:
    data = read(root)
    assert len(data) == ROWS
    assert data.classes[9] == "truck"
    keys = [(index, 1) for index in range(ROWS)]
    samples = data.__getitems__(keys)
    assert [key for key, _ in samples] == keys
    for (row, _), sample in samples:
        assert list(sample) == ["rgb", "label"]
        assert (sample["rgb"].permute(1, 2, 0).numpy() == PIXELS[row]).all()
        assert sample["label"].item() == LABELS[row]
        assert sample["label"].dtype == torch.int64


def test_the_names_of_the_hub_are_understood(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", {"image": images(), "label": LABELS})
    write(tmp_path / "test-00000-of-00001.parquet", {"img": images()[:3], "label": LABELS[:3]})
    assert len(read(tmp_path)) == ROWS
    assert len(read(tmp_path, split="test")) == 3
    assert (read(tmp_path).__getitems__([(7, 0)])[0][1]["rgb"].permute(1, 2, 0).numpy() == PIXELS[7]).all()


def test_parts_share_the_rows_out(root: Path) -> None:
    whole = [sample["rgb"] for _, sample in read(root).__getitems__([(index, 0) for index in range(ROWS)])]
    rows = []
    for part in ((0.0, 0.7), (0.7, 1.0)):
        data = read(root, part=part)
        for _, sample in data.__getitems__([(index, 0) for index in range(len(data))]):
            (row,) = (row for row, image in enumerate(whole) if torch.equal(image, sample["rgb"]))
            assert sample["label"].item() == LABELS[row]
            rows.append(row)
        assert len(data) == pytest.approx((part[1] - part[0]) * ROWS, abs=10)
    assert sorted(rows) == list(range(ROWS))


def test_worker_processes_read_the_same(root: Path) -> None:
    data = read(root, part=(0.2, 1.0))
    copy = pickle.loads(pickle.dumps(data))
    assert len(pickle.dumps(data)) < 5000
    keys = [(3, 0), (1, 0)]
    for (_, ours), (_, theirs) in zip(data.__getitems__(keys), copy.__getitems__(keys), strict=True):
        assert torch.equal(ours["rgb"], theirs["rgb"])
        assert ours["label"] == theirs["label"]
    loader = DataLoader(
        data,
        batch_sampler=GlobalBatchSampler(len(data), 4, seed=0),
        collate_fn=TargetCollate(data.modalities, 32),
        num_workers=1,
    )
    batch = next(iter(loader))
    assert batch["rgb"].shape == (4, 3, 32, 32)
    assert batch["present"].all()


# Errors


def test_an_image_that_cannot_be_read_is_an_error_that_names_its_row(tmp_path: Path) -> None:
    damaged = images()
    damaged[5]["bytes"] = damaged[5]["bytes"][:100]
    damaged[6]["bytes"] = None
    data = read(write(tmp_path / "train.parquet", {"img": damaged, "label": LABELS}))
    for row in (5, 6):
        message = rf"Row {row} \(from 0\), column 'img' of .*train\.parquet cannot be read as an image"
        with pytest.raises(ValueError, match=message):
            data.__getitems__([(row, 0)])


def test_images_that_cannot_be_read_can_be_left_out(tmp_path: Path) -> None:
    damaged = images()
    damaged[5]["bytes"] = b"no image"
    data = read(write(tmp_path / "train.parquet", {"img": damaged, "label": LABELS}), on_error="skip")
    samples = data.__getitems__([(4, 0), (5, 0)])
    assert [list(sample) for _, sample in samples] == [["rgb", "label"], ["label"]]
    assert data.skipped == 1


@pytest.mark.parametrize(("label", "column"), [(10, [10]), (-1, [-1]), (None, [None])])
def test_a_label_out_of_range_is_an_error_that_names_its_row(tmp_path: Path, label: Any, column: list[Any]) -> None:
    write(tmp_path / "train.parquet", {"img": images(), "label": [*LABELS[:3], *column, *LABELS[4:]]})
    message = rf"Expected labels from 0 to 9, got {label} in row 3 \(from 0\), column 'label' of .*train\.parquet"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": images(), "label": LABELS}, r"Expected a column 'img' in .*, got \['picture', 'label'\]"),
        ({"img": images(), "fine_label": LABELS}, r"Expected a column 'label' in .*, got \['img', 'fine_label'\]"),
        ({"img": ["a.png"] * 3, "label": [0, 1, 2]}, "Expected images as bytes in column 'img' of .*, got string"),
        ({"img": images(), "label": ["cat"] * ROWS}, "Expected whole numbers in column 'label' of .*, got string"),
    ],
)
def test_other_columns_are_an_error_that_names_them(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "train.parquet", columns))


def test_a_file_that_is_not_there_or_no_parquet_file_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected one file val\*\.parquet in .*, found none"):
        read(root, split="val")
    with pytest.raises(ValueError, match="found no such folder"):
        read(root / "elsewhere")
    write(tmp_path / "train-2.parquet")
    with pytest.raises(ValueError, match=r"Expected one file train\*\.parquet in .*, found 2"):
        read(root)
    (tmp_path / "test.parquet").write_bytes((root / "train.parquet").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"Expected a parquet file, perhaps truncated, in .*test\.parquet: "):
        read(root, split="test")


def test_an_impossible_part_is_an_error(root: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a part from one number in \[0, 1\] up to a larger one"):
        read(root, part=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"Expected images in the part \(0, 1e-09\), all 40 lie outside"):
        read(root, part=(0, 1e-9))


def test_other_modalities_are_an_error(root: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected the modality rgb alone for CIFAR-10, got \['rgb', 'depth'\]"):
        Cifar10({"rgb": Rgb(), "depth": Depth()}, CROP, root=root)
    assert len(Cifar10({"rgb": Rgb(), "norm_rgb": NormRgb()}, CROP, root=root)) == ROWS


# Parts of shards


def test_parts_of_shards_are_those_of_the_folders_they_were_made_from(tmp_path: Path) -> None:
    for number, name in enumerate(
        f"{class_}/{stem}" for class_ in ("a", "b.c") for stem in ("1", "c.d", "__e", "f%2E")
    ):
        path = tmp_path / f"images/train/rgb/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number]).save(path)
    pack_shards(tmp_path / "images/train", tmp_path / "shards", samples_per_shard=3)
    sizes = []
    for part in ((0.0, 0.5), (0.5, 1.0)):
        folders = ImageFolders({"rgb": Rgb()}, CROP, root=tmp_path / "images", part=part)
        shards = ImageShards({"rgb": Rgb()}, CROP, folder=tmp_path / "shards", part=part)
        sizes.append(len(shards))
        keys = [(index, 0) for index in range(len(folders))]
        for (_, ours), (_, theirs) in zip(shards.__getitems__(keys), folders.__getitems__(keys), strict=True):
            assert torch.equal(ours["rgb"], theirs["rgb"])
            assert ours["label"] == theirs["label"]
    assert sum(sizes) == 8
    assert min(sizes) > 0


# Real images


@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA names no folder with CIFAR-10")
def test_the_real_cifar10_is_read() -> None:
    root = Path(os.environ["TASKROBUST_DATA"]) / "cifar10"
    train, test = read(root), read(root, split="test")
    assert (len(train), len(test)) == (50_000, 10_000)
    labels = [sample["label"].item() for _, sample in test.__getitems__([(index, 0) for index in range(1000)])]
    assert sorted(set(labels)) == list(range(10))
