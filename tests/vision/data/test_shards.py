import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
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
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read(folder: Path, tmp_path: Path, **options: Any) -> ImageShards:
    return ImageShards(MODALITIES, CROP, folder=folder, cache=tmp_path / "cache", **options)


def assert_same_samples(shards: ImageShards, folders: ImageFolders) -> None:
    assert len(shards) == len(folders)
    keys = [(index, 3) for index in range(len(folders))]
    for (key, ours), (_, theirs) in zip(shards.__getitems__(keys), folders.__getitems__(keys), strict=True):
        assert ours.keys() == theirs.keys(), key
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), key


# Packing


def test_files_are_copied_byte_for_byte_in_the_layout_of_webdataset(source: Path, tmp_path: Path) -> None:
    (source / "rgb/cat/1.jpg").rename(source / "rgb/cat/1.JPEG")
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    members = {}
    for shard in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(shard) as tar:
            members.update({member.name: tar.extractfile(member).read() for member in tar})  # type: ignore[union-attr]
    assert len(members) == 4 * len(NAMES)
    assert list(members)[:4] == ["cat/1.depth.png", "cat/1.rgb.jpeg", "cat/1.semseg.png", "cat/1.cls"]
    assert members["cat/1.rgb.jpeg"] == (source / "rgb/cat/1.JPEG").read_bytes()
    assert members["dog/c%2Ed.depth.png"] == (source / "depth/dog/c.d.png").read_bytes()
    assert members["dog/c%2Ed.cls"] == b"1"


def test_the_manifest_says_what_the_shards_hold(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    manifest = json.loads((tmp_path / "shards/shards.json").read_text())
    assert manifest["complete"]
    assert manifest["samples"] == len(NAMES)
    assert manifest["classes"] == ["cat", "dog"]
    assert manifest["modalities"] == {
        "depth": {"files": 12, "fields": ["depth.png"]},
        "rgb": {"files": 12, "fields": ["rgb.jpg"]},
        "semseg": {"files": 12, "fields": ["semseg.png"]},
    }
    assert [(shard["file"], shard["samples"]) for shard in manifest["shards"]] == [
        ("shard-00000.tar", 5),
        ("shard-00001.tar", 5),
        ("shard-00002.tar", 2),
    ]
    assert manifest["shards"][0]["bytes"] == (tmp_path / "shards/shard-00000.tar").stat().st_size


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
    original = module._members

    def fail_at_seven(listing: Any, sample: int) -> Any:
        if sample == 7:
            raise OSError("No space left on device")
        return original(listing, sample)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_members", fail_at_seven)
        with pytest.raises(OSError, match="No space left"):
            pack_shards(source, output, samples_per_shard=5, threads=1)
    left = {path.name for path in output.iterdir()}
    assert left - {"shard-00002.tar"} == {"shard-00000.tar", "shards.json"}
    with pytest.raises(ValueError, match=r"got an unfinished folder\. `taskrobust shards "):
        read(output, tmp_path)
    kept = (output / "shard-00000.tar").stat().st_mtime_ns
    pack_shards(source, output, samples_per_shard=5)
    assert (output / "shard-00000.tar").stat().st_mtime_ns == kept
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
    while len(list(output.glob("*.tar"))) < 10:
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
    shards = read(tmp_path / "shards", tmp_path)
    folders = ImageFolders(MODALITIES, CROP, root=source.parent)
    assert shards.classes == folders.classes == ["cat", "dog"]
    assert_same_samples(shards, folders)


def test_depth_of_sixteen_bits_is_exact(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards")
    data = read(tmp_path / "shards", tmp_path)
    (file,) = (file for file in data._files(7) if file.modality == "depth")
    assert isinstance(file.source, BytesIO)
    stems = sorted(name.removeprefix("dog/") for name in NAMES if name.startswith("dog"))
    expected = np.asarray(Image.open(source / f"depth/dog/{stems[1]}.png"))
    assert (np.asarray(Image.open(file.source)) == expected).all()


def test_the_copy_is_in_the_folder_that_was_named_and_made_once(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    first = read(tmp_path / "shards", tmp_path)
    (arrow,) = (tmp_path / "cache").rglob("*.arrow")
    before = arrow.stat().st_mtime_ns
    assert first._rows.cache_files[0]["filename"] == str(arrow)
    read(tmp_path / "shards", tmp_path)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")] == [before]


def test_other_shards_in_the_same_folder_make_another_copy(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards")
    read(tmp_path / "shards", tmp_path)
    shutil.rmtree(tmp_path / "shards")
    Image.new("RGB", (32, 24), "red").save(source / "rgb/cat/1.jpg")
    pack_shards(source, tmp_path / "shards")
    assert_same_samples(read(tmp_path / "shards", tmp_path), ImageFolders(MODALITIES, CROP, root=source.parent))


def test_samples_that_lack_a_modality_are_taken_on_request(source: Path, tmp_path: Path) -> None:
    (source / "depth/cat/1.png").unlink()  # among the first, from which the reader would guess the fields
    (source / "rgb/dog/2.jpg").unlink()
    (source / "rgb/dog/3.jpg").rename(source / "rgb/dog/3.PNG")  # another field
    pack_shards(source, tmp_path / "shards", samples_per_shard=5, missing="absent")
    folders = ImageFolders(MODALITIES, CROP, root=source.parent, missing="absent")
    assert_same_samples(read(tmp_path / "shards", tmp_path, missing="absent"), folders)
    with pytest.raises(
        ValueError, match=r"Expected \['rgb', 'depth', 'semseg'\] in each of the 12 samples.*rgb is in 11"
    ):
        read(tmp_path / "shards", tmp_path)


def test_modalities_that_are_not_asked_for_are_not_read(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards")
    data = ImageShards({"depth": Depth()}, CROP, folder=tmp_path / "shards", cache=tmp_path / "cache")
    assert set(data.__getitems__([(0, 0)])[0][1]) == {"depth", "label"}
    with pytest.raises(ValueError, match=r"Expected \['heat'\] in each of the 12 samples of .*, heat is in 0"):
        ImageShards({"heat": Depth()}, CROP, folder=tmp_path / "shards", cache=tmp_path / "cache")


def test_images_without_classes_have_no_label(source: Path, tmp_path: Path) -> None:
    for modality in SUFFIXES:
        (source / modality / "cat").rename(source / modality / "all")
        shutil.rmtree(source / modality / "dog")
    pack_shards(source, tmp_path / "shards")
    data = read(tmp_path / "shards", tmp_path)
    assert data.classes == []
    assert "label" not in data.__getitems__([(0, 0)])[0][1]


def test_workers_give_the_batches_of_the_main_process(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    data = read(tmp_path / "shards", tmp_path)
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
    with pytest.raises(ValueError, match=r"shard-00001\.tar:dog/2\.depth\.png cannot be read as an image"):
        read(tmp_path / "shards", tmp_path).__getitems__([(7, 0)])
    data = read(tmp_path / "shards", tmp_path, on_error="skip")
    assert set(data.__getitems__([(7, 0)])[0][1]) == {"rgb", "semseg", "label"}
    assert data.skipped == 1


@pytest.mark.parametrize("kept", [0, 512, 0.5, 0.99])
def test_a_truncated_shard_is_an_error_that_names_it(source: Path, tmp_path: Path, kept: float) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    shard = tmp_path / "shards/shard-00001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content) if kept < 1 else kept)])
    with pytest.raises(ValueError, match=r"The shard .*shard-00001\.tar is damaged: it has \d+ of \d+ bytes"):
        read(tmp_path / "shards", tmp_path)


def test_a_shard_with_other_bytes_is_an_error_that_names_it(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    shard = tmp_path / "shards/shard-00002.tar"
    content = bytearray(shard.read_bytes())
    content[2000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"The shard .*shard-00002\.tar is damaged: it has other content"):
        read(tmp_path / "shards", tmp_path)


def test_a_missing_shard_is_repaired_by_the_command(source: Path, tmp_path: Path) -> None:
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    before = contents(tmp_path / "shards")
    (tmp_path / "shards/shard-00001.tar").unlink()
    with pytest.raises(
        ValueError, match=r"The shard .*shard-00001\.tar is missing.*run the `taskrobust shards` command"
    ):
        read(tmp_path / "shards", tmp_path)
    pack_shards(source, tmp_path / "shards", samples_per_shard=5)
    assert contents(tmp_path / "shards") == before


def test_a_folder_without_shards_is_an_error_that_names_the_command(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder does not exist\. Use `taskrobust shards --source"):
        read(tmp_path / "missing", tmp_path)
    with pytest.raises(ValueError, match=r"it holds no shards\.json"):
        read(source, tmp_path)
    (tmp_path / "shards.json").write_text('{"format": 1, ')
    with pytest.raises(ValueError, match=r"shards\.json is damaged"):
        read(tmp_path, tmp_path)
    (tmp_path / "shards.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"Expected shards of format 1, got 99"):
        read(tmp_path, tmp_path)


@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA names no folder with NYUv2")
def test_nyuv2_from_shards_is_nyuv2_from_folders(tmp_path: Path) -> None:
    root = Path(os.environ["TASKROBUST_DATA"]) / "nyuv2"
    pack_shards(root / "val", tmp_path / "shards", samples_per_shard=100)
    modalities = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg(num_classes=40, reduce_zero_label=True)}
    shards = ImageShards(modalities, JointCrop(64), folder=tmp_path / "shards", cache=tmp_path / "cache")
    folders = ImageFolders(modalities, JointCrop(64), root=root, split="val")
    keys = [(index, 1) for index in range(0, 654, 31)]
    assert len(shards) == 654
    for (_, ours), (_, theirs) in zip(shards.__getitems__(keys), folders.__getitems__(keys), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
