import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from taskrobust.commands import pretext_cifar10 as cifar10_module
from taskrobust.commands import pretext_synthetic as synthetic_module
from taskrobust.commands.pretext_cifar10 import pretext_cifar10
from taskrobust.commands.pretext_synthetic import pretext_synthetic
from taskrobust.studies.pretext.cifar10 import Cifar10Protocol, Split, read_cifar10
from taskrobust.studies.pretext.generators import ClassImages
from taskrobust.studies.pretext.synthetic import Setting

TINY = Cifar10Protocol(epochs=1, steps=2, features=8)


def write_parquet(path: Path, number: int, size: int = 32) -> None:
    images, classes = ClassImages(classes=10, size=size).sample(number, seed=0)
    rows = []
    for image in (images * 255).byte().permute(0, 2, 3, 1):
        buffer = io.BytesIO()
        Image.fromarray(image.numpy()).save(buffer, format="png")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    parquet.write_table(pa.table({"img": rows, "label": classes.tolist()}), path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the format of CIFAR-10 with 300 training and 40 test images."""
    folder = tmp_path_factory.mktemp("cifar10")
    write_parquet(folder / "train.parquet", 300)
    write_parquet(folder / "test.parquet", 40)
    return folder


def test_cifar10_writes_table_and_plot(data: Path, tmp_path: Path) -> None:
    pretext_cifar10(tmp_path, str(data), [20, 30], TINY)
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["processors"]) == {"20", "30"}
    assert 0 <= table["ssl"]["pooled"]["half"]["30"] <= 1
    assert set(table["processors"]["20"]["full"]) == {"hidden", "predicted", "processed"}
    assert "| full: the slides |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "accuracies.png").stat().st_size > 10_000


def test_cifar10_resumes_with_the_missing_cells(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretext_cifar10(tmp_path, str(data), [20, 30], TINY)
    before = json.loads((tmp_path / "table.json").read_text())
    (tmp_path / "cells/n0-30.json").unlink()
    monkeypatch.delattr(cifar10_module, "measure_ssl")  # already measured
    pretext_cifar10(tmp_path, str(data), [20, 30], TINY)
    after = json.loads((tmp_path / "table.json").read_text())
    for table in (before, after):
        table["processors"]["30"].pop("seconds")
    assert after == before
    pretext_cifar10(tmp_path, str(data), [20, 25], TINY)
    table = json.loads((tmp_path / "table.json").read_text())
    assert (table["ssl"]["full"], table["ssl"]["pooled"]["full"]["20"]) == (
        before["ssl"]["full"],
        before["ssl"]["pooled"]["full"]["20"],
    )
    assert set(table["ssl"]["pooled"]["half"]) == {"20", "25"}


def test_cells_of_other_settings_raise(data: Path, tmp_path: Path) -> None:
    pretext_cifar10(tmp_path, str(data), [20], TINY)
    with pytest.raises(ValueError, match=r"penalty is 0\.3 there and 1\.0 here"):
        pretext_cifar10(tmp_path, str(data), [20], Cifar10Protocol(epochs=1, steps=2, features=8, penalty=1.0))


def test_cells_of_other_images_raise(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    pretext_cifar10(tmp_path / "out", str(other), [20], TINY)
    with pytest.raises(ValueError, match=r"data is '.*other' there"):
        pretext_cifar10(tmp_path / "out", str(data), [20], TINY)
    write_parquet(other / "test.parquet", 30)
    with pytest.raises(ValueError, match=r"crc32 is \["):
        pretext_cifar10(tmp_path / "out", str(other), [20], TINY)


@pytest.mark.parametrize("extra", [[], [0], [20, -1]])
def test_no_extra_images_raise(extra: list[int], data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n0 of at least one image at scale 1, got \["):
        pretext_cifar10(tmp_path, str(data), extra, TINY)


def test_no_seeds_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 seed, got 0"):
        pretext_synthetic(tmp_path, seeds=0)


def test_too_many_extra_images_raise(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n0 of at most 30, a tenth of the training images, got 31"):
        pretext_cifar10(tmp_path, str(data), [20, 31], TINY)


def test_parts_of_the_split_are_disjoint() -> None:
    images = torch.arange(1000.0)[:, None, None, None].expand(1000, 3, 1, 1)
    split = Split.of((images, torch.zeros(1000)), (images, torch.zeros(1000)), scale=1.0, seed=0)
    parts = [set(part[0][:, 0, 0, 0].tolist()) for part in (split.extra, split.unlabeled, split.labeled)]
    assert [len(part) for part in parts] == [100, 600, 300]
    assert len(set.union(*parts)) == 1000


def test_missing_files_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"in .*train\.parquet, got no file"):
        read_cifar10(str(tmp_path))


def test_row_without_an_image_raises(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"bytes": b"no image", "path": None}]
    for part in ("train", "test"):
        parquet.write_table(pa.table({"img": rows, "label": [1]}), tmp_path / f"{part}.parquet")
    with pytest.raises(ValueError, match=r"in row 0 of the column img of .*train\.parquet"):
        read_cifar10(str(tmp_path))


def test_images_of_wrong_size_raise(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", 2, size=24)
    with pytest.raises(ValueError, match=r"32 by 32 pixels in row 0 .*24"):
        read_cifar10(str(tmp_path))


def test_missing_columns_raise(tmp_path: Path) -> None:
    for part in ("train", "test"):
        parquet.write_table(pa.table({"img": [None], "klass": [1]}), tmp_path / f"{part}.parquet")
    with pytest.raises(ValueError, match=r"column 'label' in .*train\.parquet, got \['img', 'klass'\]"):
        read_cifar10(str(tmp_path))


def test_synthetic_writes_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = {"n0": {20: Setting(extra=20, free=12), 40: Setting(extra=40, free=12)}, "hidden": {8: Setting(hidden=8)}}
    monkeypatch.setattr(synthetic_module, "CURVES", curves)
    pretext_synthetic(tmp_path, seeds=1)
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["n0"]["20"]) == {"processed", "boosted", "plain", "pooled"}
    assert (tmp_path / "table.md").read_text().count("\n") == 5
    assert (tmp_path / "errors.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA is not set")
def test_real_images_are_read() -> None:
    (train, classes), (test, _) = read_cifar10("$TASKROBUST_DATA/cifar10")
    assert (train.shape, test.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert classes.bincount().tolist() == [5000] * 10
    assert 0.4 < train.mean() < 0.55
