import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from taskrobust.commands import shards as module
from taskrobust.commands.shards import shards as pack_shards
from taskrobust.vision.data import ImageFolders, ImageShards, MaeCollate
from taskrobust.vision.modalities import Depth, Modality, NormRgb, Rgb, SemSeg
from taskrobust.vision.transforms.crops import JointCrop

MODALITIES: dict[str, Modality] = {
    "rgb": Rgb(),
    "depth": Depth(),
    "semseg": SemSeg(num_classes=5),
    "norm_rgb": NormRgb(),
}
SUFFIXES = {"rgb": "jpg", "depth": "png", "semseg": "png"}
NAMES = [f"{class_}/{stem}" for class_ in ("cat", "dog") for stem in ("1", "2", "3", "c.d", "__e", "f%2E")]
CROP = JointCrop(16)


@pytest.fixture(autouse=True)
def no_progress_bars() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in NAMES:
        colors = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        millimeters = rng.integers(1, 10_000, (24, 32), dtype=np.uint16)
        labels = rng.integers(0, 5, (12, 16), dtype=np.uint8)
        for modality, array in zip(SUFFIXES, (colors, millimeters, labels), strict=True):
            path = tmp_path / "images/train" / modality / f"{name}.{SUFFIXES[modality]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return tmp_path / "images/train"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(folder: Path, **options: Any) -> ImageShards:
    return ImageShards(MODALITIES, CROP, folder=folder, **options)


def assert_same_samples(shards: ImageShards, folders: ImageFolders) -> None:
    assert len(shards) == len(folders)
    keys = [(index, 3) for index in range(len(folders))]
    for (key, ours), (_, theirs) in zip(shards.__getitems__(keys), folders.__getitems__(keys), strict=True):
        assert ours.keys() == theirs.keys(), key
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), key


# Packing


def test_files_are_stored_byte_for_byte(source: Path, tmp_path: Path) -> None:
    (source / "rgb/cat/1.jpg").rename(source / "rgb/cat/1.JPEG")
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    rows = {
        row["key"].decode(): row
        for shard in sorted((tmp_path / "shards").glob("*.arrow"))
        for row in datasets.Dataset.from_file(str(shard))
    }
    assert list(rows) == sorted(NAMES)
    for name, row in rows.items():
        assert row["label"] == ("cat", "dog").index(name.split("/")[0])
        for modality in SUFFIXES:
            path = source / modality / row[modality]["path"]
            assert path.with_suffix("") == source / modality / name
            assert row[modality]["bytes"] == path.read_bytes()
    assert rows["cat/1"]["rgb"]["path"] == "cat/1.JPEG"


def test_the_manifest_says_what_the_shards_hold(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    manifest = json.loads((tmp_path / "shards/shards.json").read_text())
    assert manifest["complete"]
    assert manifest["samples"] == len(NAMES)
    assert manifest["classes"] == ["cat", "dog"]
    assert manifest["modalities"] == {"depth": 12, "rgb": 12, "semseg": 12}
    assert [(shard["file"], shard["samples"]) for shard in manifest["shards"]] == [
        ("shard-00000.arrow", 5),
        ("shard-00001.arrow", 5),
        ("shard-00002.arrow", 2),
    ]
    assert manifest["shards"][0]["bytes"] == (tmp_path / "shards/shard-00000.arrow").stat().st_size


def test_four_threads_write_the_bytes_of_one_whatever_the_age_of_the_files(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "one", samples_per_shard=5, threads=1)
    for path in source.rglob("*.png"):
        os.utime(path, (0, 0))
    pack_shards(source, tmp_path / "two", samples_per_shard=5, threads=4)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_packing_that_broke_off_goes_on_to_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_shards(source, tmp_path / "whole", samples_per_shard=5)
    output = tmp_path / "broken"
    original = module._row

    def fail_at_seven(listing: Any, sample: int) -> Any:
        if sample == 7:
            raise OSError("No space left on device")
        return original(listing, sample)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_row", fail_at_seven)
        with pytest.raises(OSError, match="No space left"):
            pack_shards(source, output, samples_per_shard=5, threads=1)
    left = {path.name for path in output.iterdir()}
    assert left - {"shard-00002.arrow"} == {"shard-00000.arrow", "shards.json"}
    with pytest.raises(ValueError, match=r"got an unfinished folder\. `taskrobust shards "):
        read(output)
    kept = (output / "shard-00000.arrow").stat().st_mtime_ns
    pack_shards(source, output, samples_per_shard=5)
    assert (output / "shard-00000.arrow").stat().st_mtime_ns == kept
    assert contents(output) == contents(tmp_path / "whole")


def test_a_finished_folder_is_left_as_it_is(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pack_shards(source, tmp_path / "shards")
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "shards").iterdir())]
    pack_shards(source, tmp_path / "shards")
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "shards").iterdir())] == before
    assert capfd.readouterr().err.strip().endswith("is complete.")


def test_a_folder_with_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    pack_shards(source, output, samples_per_shard=5)
    with pytest.raises(ValueError, match="was made with other settings: samples_per_shard is 5 there and 6 here"):
        pack_shards(source, output, samples_per_shard=6)
    for modality, suffix in SUFFIXES.items():
        (source / modality / f"dog/1.{suffix}").unlink()
    with pytest.raises(ValueError, match="was made with other settings: listing is"):
        pack_shards(source, output, samples_per_shard=5)
    with pytest.raises(ValueError, match="Expected a new or empty folder"):
        pack_shards(source, source)


def test_files_that_do_not_pair_are_an_error_that_writes_nothing(source: Path, tmp_path: Path) -> None:
    (source / "depth/dog/1.png").unlink()
    with pytest.raises(ValueError, match=r"Expected a depth map of each of the 12 images, 1 have none"):
        pack_shards(source, tmp_path / "shards")
    with pytest.raises(ValueError, match=r"Expected a folder with a folder for each modality, .* holds none"):
        pack_shards(source / "rgb/dog", tmp_path / "shards")
    with pytest.raises(ValueError, match="threads of at least 1, got 1000 and 0"):
        pack_shards(source, tmp_path / "shards", threads=0)
    assert not (tmp_path / "shards").exists()


@pytest.mark.slow
def test_packing_that_was_killed_goes_on_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for modality, suffix in SUFFIXES.items():
        for number in range(500):
            shutil.copy(source / modality / f"dog/1.{suffix}", source / modality / f"dog/n{number}.{suffix}")
    pack_shards(source, tmp_path / "whole", samples_per_shard=2)
    output = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from taskrobust.commands.shards import shards as pack_shards\n"
        f"if __name__ == '__main__': pack_shards(Path({str(source)!r}), Path({str(output)!r}), samples_per_shard=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(output.glob("*.arrow"))) < 10:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not json.loads((output / "shards.json").read_text())["complete"]
    pack_shards(source, output, samples_per_shard=2)
    assert contents(output) == contents(tmp_path / "whole")


# Reading


def test_shards_give_the_samples_of_the_folders(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    shards = read(tmp_path / "shards")
    folders = ImageFolders(MODALITIES, CROP, root=source.parent)
    assert shards.classes == folders.classes == ["cat", "dog"]
    assert_same_samples(shards, folders)


def test_depth_of_sixteen_bits_is_exact(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards")
    data = read(tmp_path / "shards")
    (file,) = (file for file in data.files(7) if file.modality == "depth")
    assert isinstance(file.source, BytesIO)
    stems = sorted(name.removeprefix("dog/") for name in NAMES if name.startswith("dog"))
    expected = np.asarray(Image.open(source / f"depth/dog/{stems[1]}.png"))
    assert (np.asarray(Image.open(file.source)) == expected).all()


def test_shards_are_mapped_and_not_copied(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    before = contents(tmp_path)
    data = read(tmp_path / "shards")
    assert [file["filename"] for file in data._rows.cache_files] == [
        str(tmp_path / f"shards/shard-0000{number}.arrow") for number in range(3)
    ]
    assert contents(tmp_path) == before
    assert len(pickle.dumps(data)) < 20_000


def test_other_shards_in_the_same_folder_are_read(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards")
    read(tmp_path / "shards")
    shutil.rmtree(tmp_path / "shards")
    Image.new("RGB", (32, 24), "red").save(source / "rgb/cat/1.jpg")
    pack_shards(source, tmp_path / "shards")
    assert_same_samples(read(tmp_path / "shards"), ImageFolders(MODALITIES, CROP, root=source.parent))


def test_samples_that_lack_a_modality_are_taken_on_request(source: Path, tmp_path: Path) -> None:
    (source / "depth/cat/1.png").unlink()
    (source / "rgb/dog/2.jpg").unlink()
    (source / "rgb/dog/3.jpg").rename(source / "rgb/dog/3.PNG")  # another suffix
    pack_shards(source, tmp_path / "shards", samples_per_shard=5, missing="absent")
    folders = ImageFolders(MODALITIES, CROP, root=source.parent, missing="absent")
    assert_same_samples(read(tmp_path / "shards", missing="absent"), folders)
    with pytest.raises(
        ValueError, match=r"Expected \['rgb', 'depth', 'semseg'\] in each of the 12 samples.*rgb is in 11"
    ):
        read(tmp_path / "shards")


def test_modalities_that_are_not_asked_for_are_not_read(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards")
    data = ImageShards({"depth": Depth()}, CROP, folder=tmp_path / "shards")
    assert set(data.__getitems__([(0, 0)])[0][1]) == {"depth", "label"}
    with pytest.raises(ValueError, match=r"Expected \['heat'\] in each of the 12 samples of .*, heat is in 0"):
        ImageShards({"heat": Depth()}, CROP, folder=tmp_path / "shards")


def test_images_without_classes_have_no_label(source: Path, tmp_path: Path) -> None:
    for modality in SUFFIXES:
        (source / modality / "cat").rename(source / modality / "all")
        shutil.rmtree(source / modality / "dog")
    pack_shards(source, tmp_path / "shards")
    data = read(tmp_path / "shards")
    assert data.classes == []
    assert "label" not in data.__getitems__([(0, 0)])[0][1]


def test_workers_give_the_batches_of_the_main_process(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    data = read(tmp_path / "shards")
    keys = [[(index, 0) for index in range(start, start + 4)] for start in (8, 0, 4)]
    for workers in (0, 2):
        loader: DataLoader[Any] = DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=keys,  # type: ignore[arg-type]
            collate_fn=MaeCollate(MODALITIES, 16),
            num_workers=workers,
        )
        batches = list(loader)
        if workers == 0:
            expected = batches
    for ours, theirs in zip(batches, expected, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_damaged_image_in_a_shard_is_named_or_skipped(source: Path, tmp_path: Path) -> None:
    (source / "depth/dog/2.png").write_bytes((source / "depth/dog/2.png").read_bytes()[:200])
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    with pytest.raises(
        ValueError,
        match=r"shard-00001\.arrow, row 2 \(from 0\), column 'depth' \(dog/2\.png\) cannot be read as an image",
    ):
        read(tmp_path / "shards").__getitems__([(7, 0)])
    data = read(tmp_path / "shards", on_error="skip")
    assert set(data.__getitems__([(7, 0)])[0][1]) == {"rgb", "semseg", "label"}
    assert data.skipped == 1


@pytest.mark.parametrize("kept", [0, 512, 0.5, 0.99])
def test_a_truncated_shard_is_an_error_that_names_it(source: Path, tmp_path: Path, kept: float) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    shard = tmp_path / "shards/shard-00001.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content) if kept < 1 else kept)])
    with pytest.raises(ValueError, match=r"The shard .*shard-00001\.arrow is damaged: it has \d+ of \d+ bytes"):
        read(tmp_path / "shards")


@pytest.mark.parametrize("damaged", ["image", "key"])
def test_a_shard_with_other_bytes_is_an_error_that_names_it(source: Path, tmp_path: Path, damaged: str) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    shard = tmp_path / "shards/shard-00002.arrow"
    content = bytearray(shard.read_bytes())
    image = (source / f"depth/{sorted(NAMES)[11]}.png").read_bytes()
    place = content.index(image) + 100 if damaged == "image" else content.index(b"dog/c.d") + 1
    content[place] ^= 1
    shard.write_bytes(content)
    data = read(tmp_path / "shards", on_error="skip")
    row = 1 if damaged == "image" else sorted(NAMES)[10:].index("dog/c.d")
    with pytest.raises(
        ValueError, match=rf"The shard .*shard-00002\.arrow is damaged: row {row} \(from 0\) has other content"
    ):
        data.__getitems__([(10 + row, 0)])


def test_a_shard_with_a_damaged_header_is_an_error_that_names_it(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    shard = tmp_path / "shards/shard-00001.arrow"
    content = shard.read_bytes()
    for damaged in (bytes(len(content)), b"?" * 64 + content[64:]):
        shard.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"The shard .*shard-00001\.arrow is damaged: "):
            read(tmp_path / "shards")


def test_a_reserved_name_of_a_modality_is_an_error(source: Path, tmp_path: Path) -> None:
    (source / "depth").rename(source / "label")
    with pytest.raises(ValueError, match=r"got the reserved name label\. Rename the folder"):
        pack_shards(source, tmp_path / "shards")


def test_a_missing_shard_is_repaired_by_the_command(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    before = contents(tmp_path / "shards")
    (tmp_path / "shards/shard-00001.arrow").unlink()
    with pytest.raises(
        ValueError, match=r"The shard .*shard-00001\.arrow is missing.*run the `taskrobust shards` command"
    ):
        read(tmp_path / "shards")
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    assert contents(tmp_path / "shards") == before


def test_a_folder_without_shards_is_an_error_that_names_the_command(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder does not exist\. Use `taskrobust shards --source"):
        read(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"it holds no shards\.json"):
        read(source)
    (tmp_path / "shards.json").write_text('{"format": 2, ')
    with pytest.raises(ValueError, match=r"shards\.json is damaged"):
        read(tmp_path)
    (tmp_path / "shards.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"Expected shards of format 2, got 99"):
        read(tmp_path)


@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA names no folder with NYUv2")
def test_nyuv2_from_shards_is_nyuv2_from_folders(tmp_path: Path) -> None:
    root = Path(os.environ["TASKROBUST_DATA"]) / "nyuv2"
    pack_shards(root / "val", tmp_path / "shards", samples_per_shard=100)
    modalities = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg(num_classes=40, reduce_zero_label=True)}
    shards = ImageShards(modalities, JointCrop(64), folder=tmp_path / "shards")
    folders = ImageFolders(modalities, JointCrop(64), root=root, split="val")
    keys = [(index, 1) for index in range(0, 654, 31)]
    assert len(shards) == 654
    for (_, ours), (_, theirs) in zip(shards.__getitems__(keys), folders.__getitems__(keys), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
