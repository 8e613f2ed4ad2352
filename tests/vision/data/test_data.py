import json
import logging
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from scipy.io import savemat
from torch.utils.data import DataLoader

from taskrobust._random import random_bits
from taskrobust.training.data import GlobalBatchSampler
from taskrobust.vision.data import ImageFolders, ImageMaps, ImageNet, ImageNetS50, MaeCollate, write_nyuv2
from taskrobust.vision.modalities import Depth, Modality, NormRgb, Rgb, SemSeg
from taskrobust.vision.transforms.crops import CenterCrop, JointCrop, Transform

MODALITIES: dict[str, Modality] = {
    "rgb": Rgb(),
    "depth": Depth(),
    "semseg": SemSeg(num_classes=5),
    "norm_rgb": NormRgb(),
}
SUFFIXES = {"rgb": "jpg", "depth": "png", "semseg": "png"}
SIZE = 16
CROP = CenterCrop(SIZE)


def write_maps(root: Path, names: list[str], seed: int = 0) -> None:
    """Three maps for each class/stem."""
    rng = np.random.default_rng(seed)
    for name in names:
        colors = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        millimeters = rng.integers(1, 10_000, (24, 32), dtype=np.uint16)
        labels = rng.integers(0, 5, (12, 16), dtype=np.uint8)
        for modality, array in zip(SUFFIXES, (colors, millimeters, labels), strict=True):
            path = root / modality / f"{name}.{SUFFIXES[modality]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_maps(tmp_path / "train", [f"{class_}/{stem}" for class_ in ("cat", "dog") for stem in ("b", "a", "c.d")])
    return tmp_path


def folders(root: Path, **options: Any) -> ImageFolders:
    return ImageFolders(MODALITIES, CROP, root=root, **options)


# Listing and pairing


def test_samples_are_in_the_order_of_class_and_stem_with_the_class_as_label(root: Path) -> None:
    data = folders(root)
    assert len(data) == 6
    assert data.classes == ["cat", "dog"]
    keys = [(index, 3) for index in range(6)]
    samples = data.__getitems__(keys)
    assert [key for key, _ in samples] == keys
    for (index, _), sample in samples:
        path = root / "train/semseg" / ("cat", "dog")[index // 3] / f"{('a', 'b', 'c.d')[index % 3]}.png"
        square = np.asarray(Image.open(path))[:, 2:14]
        nearest = [int((place + 0.5) * 12 / SIZE) for place in range(2, SIZE, 4)]
        assert (sample["semseg"].numpy() == square[nearest][:, nearest]).all()
        assert sample["label"].item() == index // 3
        assert sample["label"].dtype == torch.int64
        assert {name: (value.shape, value.dtype) for name, value in sample.items() if name != "label"} == {
            "rgb": ((3, SIZE, SIZE), torch.uint8),
            "depth": ((1, SIZE, SIZE), torch.float32),
            "semseg": ((SIZE // 4, SIZE // 4), torch.uint8),
        }


def test_images_without_classes_have_no_label(tmp_path: Path) -> None:
    write_maps(tmp_path / "train", ["all/1", "all/2"])
    data = folders(tmp_path)
    assert data.classes == []
    assert "label" not in data.__getitems__([(0, 0)])[0][1]


def test_suffixes_may_differ_in_case_and_kind_and_other_files_are_passed_over(root: Path) -> None:
    expected = folders(root).__getitems__([(0, 0)])[0][1]["rgb"]
    rgb = root / "train/rgb/cat"
    (rgb / "a.jpg").rename(rgb / "a.JPEG")
    (rgb / "notes.txt").write_text("not an image")
    (rgb / "._b.jpg").write_bytes(b"what a Mac leaves behind")
    (root / "train/rgb/.cache").mkdir()
    data = folders(root)
    assert len(data) == 6
    assert torch.equal(data.__getitems__([(0, 0)])[0][1]["rgb"], expected)


def test_a_missing_map_is_an_error_that_names_its_image(root: Path) -> None:
    (root / "train/depth/dog/b.png").unlink()
    (root / "train/depth/dog/c.d.png").unlink()
    message = (
        r"Expected a depth map of each of the 6 images, 2 have none in .*depth\. The first is dog/b, which has .*rgb"
    )
    with pytest.raises(ValueError, match=message):
        folders(root)


def test_a_map_without_an_image_is_an_error_that_names_it(root: Path) -> None:
    write_maps(root / "more", ["cat/z"])
    (root / "more/depth/cat/z.png").rename(root / "train/depth/cat/z.png")
    with pytest.raises(
        ValueError, match=r"Expected a rgb map of each of the 7 images.*first is cat/z, which has .*z\.png"
    ):
        folders(root)


def test_samples_that_lack_a_modality_are_taken_on_request(root: Path) -> None:
    (root / "train/depth/dog/b.png").unlink()
    (root / "train/rgb/cat/a.jpg").unlink()
    data = folders(root, missing="absent")
    samples = [sample for _, sample in data.__getitems__([(index, 0) for index in range(6)])]
    assert [set(MODALITIES) - set(sample) - {"norm_rgb"} for sample in samples] == [
        {"rgb"},
        set(),
        set(),
        set(),
        {"depth"},
        set(),
    ]


def test_a_modality_without_a_folder_is_an_error_or_absent(root: Path) -> None:
    (root / "train/semseg").rename(root / "elsewhere")
    with pytest.raises(
        ValueError, match=r"Expected a semseg map of each of the 6 images, 6 have none in .*train/semseg"
    ):
        folders(root)
    assert "semseg" not in folders(root, missing="absent").__getitems__([(0, 0)])[0][1]


def test_a_stem_that_occurs_twice_is_an_error_that_names_both_files(root: Path) -> None:
    Image.new("RGB", (4, 4)).save(root / "train/rgb/cat/a.png")
    with pytest.raises(ValueError, match=r"Expected one rgb map of an image, got .*cat/a\.jpg and .*cat/a\.png"):
        folders(root)


def test_the_same_stem_in_two_classes_is_two_images(root: Path) -> None:
    first, fourth = (sample["rgb"] for _, sample in folders(root).__getitems__([(0, 0), (3, 0)]))
    assert not torch.equal(first, fourth)


def test_a_folder_without_images_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected images in .*train/rgb/CLASS/\*\.jpg\|\.jpeg\|\.png.*found none"):
        folders(tmp_path)
    (tmp_path / "train/rgb/cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="Expected images in"):
        folders(tmp_path)


def test_the_listing_takes_tens_of_bytes_a_sample(root: Path) -> None:
    for number in range(500):
        for modality, suffix in SUFFIXES.items():
            (root / "train" / modality / "dog" / f"n01440764_{number:08d}.{suffix}").touch()
    assert len(pickle.dumps(folders(root))) < 506 * 30 + 5000


@pytest.mark.parametrize("index", [-1, 6])
def test_an_index_out_of_range_is_an_error(root: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"Expected an index from 0 to 5, got {index}"):
        folders(root).__getitems__([(0, 0), (index, 0)])


# Parts of the samples


@pytest.fixture
def rooms(tmp_path: Path) -> Callable[..., ImageFolders]:
    """Makes data sets of 2000 empty files, numbered one after the other."""
    for number in range(2000):
        path = tmp_path / f"train/rgb/{'cat' if number % 2 else 'dog'}/{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def make(**options: Any) -> ImageFolders:
        return ImageFolders({"rgb": Rgb()}, CROP, root=tmp_path, **options)

    return make


def paths_and_labels(data: ImageFolders) -> list[tuple[str, int | None]]:
    return [(next(data.files(index)).name, data.label(index)) for index in range(len(data))]


def test_parts_are_disjoint_and_together_all_samples(rooms: Callable[..., ImageFolders]) -> None:
    parts = [rooms(part=part) for part in ((0, 0.1), (0.1, 0.5), (0.5, 1))]
    assert all(part.classes == ["cat", "dog"] for part in parts)
    assert sorted(sample for part in parts for sample in paths_and_labels(part)) == paths_and_labels(rooms())


@pytest.mark.parametrize("part", [(0, 0.9), (0.9, 1), (0.25, 0.5), (0.5, 0.51)])
def test_a_part_has_about_its_share_of_each_class(
    rooms: Callable[..., ImageFolders], part: tuple[float, float]
) -> None:
    labels = [label for _, label in paths_and_labels(rooms(part=part))]
    share = part[1] - part[0]
    deviation = (1000 * share * (1 - share)) ** 0.5
    for label in (0, 1):
        assert labels.count(label) == pytest.approx(1000 * share, abs=4 * deviation)


def test_the_part_of_a_sample_depends_on_its_class_and_stem_alone(
    rooms: Callable[..., ImageFolders], tmp_path: Path
) -> None:
    def stems(data: ImageFolders) -> set[str]:
        return {"/".join(Path(name).with_suffix("").parts[-2:]) for name, _ in paths_and_labels(data)}

    before = stems(rooms(part=(0.9, 1)))
    assert min(before) == "cat/0013"  # on any machine, in any version
    assert max(before) == "dog/1998"
    (tmp_path / "train/rgb/bird").mkdir()
    for number in range(2000):
        (tmp_path / f"train/rgb/bird/{number:04d}.png").touch()
        if number % 5 == 0:
            (tmp_path / f"train/rgb/{'cat' if number % 2 else 'dog'}/{number:04d}.png").unlink()
    (tmp_path / "train/rgb/cat/0013.png").rename(tmp_path / "train/rgb/cat/0013.JPEG")
    after = stems(rooms(part=(0.9, 1)))
    assert {stem for stem in after if not stem.startswith("bird")} == {stem for stem in before if int(stem[4:]) % 5}


def test_samples_of_a_part_are_those_of_all(root: Path) -> None:
    whole, part = folders(root), folders(root, part=(0.3, 1))
    assert 0 < len(part) < 6
    places = {sample: index for index, sample in enumerate(paths_and_labels(whole))}
    for index, sample in enumerate(paths_and_labels(part)):
        ours, theirs = (data.__getitems__([(at, 0)])[0][1] for data, at in ((part, index), (whole, places[sample])))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("part", [(0.5, 0.5), (0.9, 0.1), (-0.1, 1), (0, 1.5), (float("nan"), 1)])
def test_a_part_that_is_no_range_is_an_error(root: Path, part: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"Expected a part from one number in \[0, 1\] up to a larger one, got \("):
        folders(root, part=part)


def test_a_part_without_samples_is_an_error(root: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected images in the part \(0\.5, 0\.5001\), all 6 lie outside"):
        folders(root, part=(0.5, 0.5001))


# Damaged files


@pytest.mark.parametrize("modality", list(SUFFIXES))
@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_a_truncated_file_is_an_error_that_names_it(root: Path, modality: str, kept: float) -> None:
    path = root / "train" / modality / f"dog/b.{SUFFIXES[modality]}"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content) if 0 < kept < 1 else kept)])
    data = folders(root)
    data.__getitems__([(3, 0)])
    with pytest.raises(ValueError, match=rf"{path} cannot be read as an image.*on_error='skip'"):
        data.__getitems__([(4, 0)])


@pytest.mark.parametrize("modality", list(SUFFIXES))
def test_a_file_that_is_no_image_is_an_error_that_names_it(root: Path, modality: str) -> None:
    path = root / "train" / modality / f"dog/b.{SUFFIXES[modality]}"
    path.write_text("<html>404</html>")
    with pytest.raises(ValueError, match=rf"{path} cannot be read as an image"):
        folders(root).__getitems__([(4, 0)])


def test_a_label_out_of_range_is_an_error_that_names_the_file_even_when_files_are_skipped(root: Path) -> None:
    path = root / "train/semseg/dog/b.png"
    Image.fromarray(np.full((12, 16), 7, np.uint8)).save(path)
    for on_error in ("raise", "skip"):
        with pytest.raises(ValueError, match=rf"{path} holds no semseg map\. Expected labels of 5 classes.*label 7"):
            folders(root, on_error=on_error).__getitems__([(4, 0)])


def test_a_skipped_file_leaves_its_map_out_is_logged_and_counted_once(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "train/depth/dog/b.png").write_bytes(b"")
    data = folders(root, on_error="skip")
    assert data.skipped == 0
    for epoch in range(3):
        samples = dict(data.__getitems__([(3, epoch), (4, epoch)]))
        assert set(samples[3, epoch]) == {"rgb", "depth", "semseg", "label"}
        assert set(samples[4, epoch]) == {"rgb", "semseg", "label"}
    assert data.skipped == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Left out" in record.message
    assert "dog/b.png" in record.message
    assert "1 files so far" in record.message


def test_a_sample_without_a_readable_map_has_none(root: Path) -> None:
    for modality, suffix in SUFFIXES.items():
        (root / f"train/{modality}/dog/b.{suffix}").write_bytes(b"")
    data = folders(root, on_error="skip")
    assert set(data.__getitems__([(4, 0)])[0][1]) == {"label"}
    assert data.skipped == 3
    batch = MaeCollate(MODALITIES, SIZE)(data.__getitems__([(4, 0), (3, 0)]))
    assert batch["present"].tolist() == [[False] * 3, [True] * 3]


def test_many_skipped_files_do_not_flood_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "train/rgb/all"
    folder.mkdir(parents=True)
    for number in range(70):
        (folder / f"{number}.jpg").touch()
    data = ImageFolders({"rgb": Rgb()}, CROP, root=tmp_path, on_error="skip")
    data.__getitems__([(index, 0) for index in range(70)])
    assert data.skipped == 70
    assert len(caplog.records) == 10 + 3  # the first, and the 16th, 32nd and 64th


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_skipped_files_are_counted_over_workers(root: Path, context: str) -> None:
    for name in ("cat/a", "dog/b"):
        (root / f"train/depth/{name}.png").write_bytes(b"")
    data = folders(root, on_error="skip")
    batches = list(loader(data, workers=2, context=context))
    assert sum(int((~batch["present"]).sum()) for batch in batches) == 2 * 2
    assert data.skipped == 2


def test_an_error_in_a_worker_names_the_file(root: Path) -> None:
    (root / "train/depth/dog/b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dog/b\.png cannot be read as an image"):
        list(loader(folders(root), workers=1))


def loader(data: ImageMaps, workers: int, context: str | None = None) -> DataLoader[Any]:
    """Two epochs in batches of four."""
    keys = [(index, epoch) for epoch in range(2) for index in range(len(data))]
    return DataLoader(
        data,  # type: ignore[arg-type]
        batch_sampler=[keys[i : i + 4] for i in range(0, len(keys), 4)],  # type: ignore[arg-type]
        collate_fn=MaeCollate(MODALITIES, SIZE),
        num_workers=workers,
        multiprocessing_context=context if workers else None,
    )


# What a sample depends on


def test_workers_give_the_batches_of_the_main_process(root: Path) -> None:
    data = ImageFolders(MODALITIES, JointCrop(SIZE), root=root)
    for here, there in zip(loader(data, workers=0), loader(data, workers=2), strict=True):
        assert here.keys() == there.keys()
        assert all(torch.equal(here[name], there[name]) for name in here)


def test_a_sample_is_a_function_of_index_and_epoch_and_leaves_the_global_generator_alone(root: Path) -> None:
    data = ImageFolders(MODALITIES, JointCrop(SIZE), root=root)
    state = torch.get_rng_state()
    alone = data.__getitems__([(4, 2)])[0][1]
    among = dict(data.__getitems__([(3, 2), (4, 3), (4, 2)]))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(alone[name], among[4, 2][name]) for name in alone)
    assert not torch.equal(among[4, 3]["depth"], alone["depth"])


def test_the_engines_sampler_gives_keys_that_the_data_takes(root: Path) -> None:
    data = folders(root)
    sampler = GlobalBatchSampler(len(data), batch_size=4, seed=0)
    batches = iter(DataLoader(data, batch_sampler=sampler, collate_fn=MaeCollate(MODALITIES, SIZE)))  # type: ignore[arg-type]
    assert [next(batches)["present"].shape for _ in range(3)] == [(4, 3)] * 3


# Batches


def test_a_batch_holds_the_maps_what_is_missing_and_the_keys_of_the_masks() -> None:
    rgb = torch.arange(2 * 3 * SIZE**2).view(2, 3, SIZE, SIZE).to(torch.uint8)
    depth = torch.rand(1, SIZE, SIZE)
    samples = [((7, 2), {"rgb": rgb[0], "depth": depth, "label": torch.tensor(1)}), ((5, 0), {"rgb": rgb[1]})]
    batch = MaeCollate(MODALITIES, SIZE, mask_seed=3)(samples)
    assert list(batch) == ["rgb", "depth", "semseg", "present", "mask_keys"]
    assert torch.equal(batch["rgb"], rgb)
    assert torch.equal(batch["depth"], torch.stack([depth, torch.zeros(1, SIZE, SIZE)]))
    assert batch["semseg"].shape == (2, SIZE // 4, SIZE // 4)
    assert (batch["semseg"] == 255).all()
    assert batch["present"].tolist() == [[True, True, False], [True, False, False]]
    assert batch["mask_keys"].dtype == torch.int64
    seed = np.array([3], np.uint64)
    expected = [int(random_bits(random_bits(seed, index), epoch)[0]) for index, epoch in ((7, 2), (5, 0))]
    assert [key % 2**64 for key in batch["mask_keys"].tolist()] == expected


def test_masks_have_another_key_in_another_epoch_or_under_another_seed() -> None:
    samples = [((index, epoch), {}) for index in range(3) for epoch in range(3)]
    keys = [MaeCollate({"rgb": Rgb()}, SIZE, seed)(samples)["mask_keys"].tolist() for seed in (0, 1)]
    assert len({*keys[0], *keys[1]}) == 18


# ImageNet


def test_imagenet_is_class_folders_of_images_with_maps_of_models_beside_them(tmp_path: Path) -> None:
    write_maps(tmp_path / "all", ["n01/x_1", "n02/x_1"])
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "all/rgb").rename(tmp_path / "imagenet/train")
    for modality in ("depth", "semseg"):
        (tmp_path / "all" / modality).rename(tmp_path / "labels/train" / modality)
    data = ImageNet(MODALITIES, CROP, root=tmp_path / "imagenet", pseudo_labels=tmp_path / "labels")
    assert data.classes == ["n01", "n02"]
    assert set(data.__getitems__([(1, 0)])[0][1]) == {"rgb", "depth", "semseg", "label"}
    plain = ImageNet({"rgb": Rgb()}, CROP, root=tmp_path / "imagenet")
    assert torch.equal(plain.__getitems__([(1, 0)])[0][1]["rgb"], data.__getitems__([(1, 0)])[0][1]["rgb"])
    with pytest.raises(ValueError, match=r"Expected a folder for each of \['rgb', 'depth', 'semseg'\], .* \['rgb'\]"):
        ImageNet(MODALITIES, CROP, root=tmp_path / "imagenet")


def test_imagenet_s50_has_the_label_in_red_and_green(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [50, 1000]]).repeat(8, 0).repeat(8, 1)
    for split in ("validation", "validation-segmentation"):
        (tmp_path / split / "n01").mkdir(parents=True)
    coded = np.stack([labels % 256, labels // 256, 0 * labels], axis=-1).astype(np.uint8)
    Image.fromarray(coded).save(tmp_path / "validation-segmentation/n01/x.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "validation/n01/x.JPEG")
    modalities = {"rgb": Rgb(), "semseg": SemSeg(num_classes=51)}
    data = ImageNetS50(modalities, CROP, root=tmp_path, split="validation")
    packed = data.__getitems__([(0, 0)])[0][1]["semseg"]
    assert packed[::2, ::2].tolist() == [[0, 1], [50, 255]]

    coded[0, 0] = (44, 2, 0)
    Image.fromarray(coded).save(tmp_path / "validation-segmentation/n01/x.png")
    with pytest.raises(ValueError, match=r"x\.png holds no semseg map\. Expected labels of 50 classes.*, got 556"):
        data.__getitems__([(0, 0)])


# NYU Depth v2


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def nyuv2(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Files as NYU's, of four images of 6 x 8 pixels, and their arrays by rows."""
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8),
        "depths": rng.uniform(0.7, 10, (4, 6, 8)).astype(np.float32),
        "labels": rng.integers(0, 895, (4, 6, 8), dtype=np.uint16),
    }
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        for name, array in arrays.items():
            file[name] = array.transpose(0, *range(array.ndim - 1, 0, -1))
    mapping = rng.integers(1, 41, 894)
    mapped = {"n": np.ones((1, 1)), "mapClass": mapping[None].astype(np.float64)}
    savemat(tmp_path / "classMapping40.mat", mapped, do_compression=request.param)
    splits = {"testNdxs": np.array([[1], [2]]), "trainNdxs": np.array([[3], [4]])}
    savemat(tmp_path / "splits.mat", splits, do_compression=request.param)
    files = [tmp_path / name for name in ("nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat")]
    return {**arrays, "mapping": np.append(0, mapping), "files": files}


def test_nyuv2_becomes_folders_of_the_official_split(nyuv2: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "nyuv2"
    write_nyuv2(*nyuv2["files"], output)
    found = sorted(str(path.relative_to(output)) for path in output.rglob("*.*"))
    assert found == sorted(
        f"{split}/{modality}/all/{number:04d}.png"
        for split, numbers in {"train": (3, 4), "val": (1, 2)}.items()
        for modality in ("rgb", "depth", "semseg")
        for number in numbers
    )
    for split, index, number in (("val", 0, 1), ("train", 3, 4)):
        rgb, depth, semseg = (
            np.asarray(Image.open(output / split / modality / "all" / f"{number:04d}.png"))
            for modality in ("rgb", "depth", "semseg")
        )
        assert (rgb == nyuv2["images"][index]).all()
        assert np.abs(depth / 1000 - nyuv2["depths"][index]).max() <= 0.0005 + 1e-6
        assert (semseg == nyuv2["mapping"][nyuv2["labels"][index]]).all()


def test_a_conversion_that_broke_off_goes_on(nyuv2: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "nyuv2"
    write_nyuv2(*nyuv2["files"], output)
    contents = {path: path.read_bytes() for path in output.rglob("*.png")}
    kept, gone = output / "train/rgb/all/0003.png", output / "train/depth/all/0004.png"
    gone.unlink()
    (output / "train/depth/all/.0004.png.unfinished").write_bytes(b"half")
    before = kept.stat().st_mtime_ns
    write_nyuv2(*nyuv2["files"], output)
    assert kept.stat().st_mtime_ns == before
    assert {path: path.read_bytes() for path in output.rglob("*.*")} == contents


def rewrite(labeled: Path, name: str, values: Any) -> None:
    with h5py.File(labeled, "a") as file:
        del file[name]
        if values is None:
            file.create_group(name)
        else:
            file[name] = values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 70.0])
def test_depths_that_are_no_depths_are_missing(nyuv2: dict[str, Any], tmp_path: Path, bad: float) -> None:
    labeled = nyuv2["files"][0]
    depths = nyuv2["depths"].transpose(0, 2, 1).copy()
    depths[0, 3, 2] = bad
    rewrite(labeled, "depths", depths)

    write_nyuv2(*nyuv2["files"], tmp_path / "nyuv2")

    written = np.asarray(Image.open(tmp_path / "nyuv2/val/depth/all/0001.png"))
    assert written[2, 3] == 0
    assert np.count_nonzero(written) == written.size - 1


@pytest.mark.parametrize("number", [0, -1, 5])
def test_a_number_of_an_image_that_is_not_there_is_named(nyuv2: dict[str, Any], tmp_path: Path, number: int) -> None:
    labeled, splits, mapping = nyuv2["files"]
    savemat(splits, {"testNdxs": np.array([[1], [2]]), "trainNdxs": np.array([[3], [number]])})
    message = rf"^Expected numbers of images from 1 to 4 in trainNdxs of {re.escape(str(splits))}, got {number}\.$"
    with pytest.raises(ValueError, match=message):
        write_nyuv2(labeled, splits, mapping, tmp_path / "nyuv2")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("images", None, r"^Expected images of 4 dimensions and uint8 values in .*labeled\.mat, got a group"),
        (
            "images",
            np.ones((4, 3, 8, 6)),
            r"^Expected images of 4 dimensions and uint8 values in .*, got float64 of shape",
        ),
        (
            "labels",
            np.ones((3, 8, 6), np.uint16),
            r"^Expected labels of 4 images in .*labeled\.mat, as there are images",
        ),
        (
            "labels",
            np.full((4, 8, 6), 895, np.uint16),
            r"^Expected the semseg map of image 3 in .*\(labels up to 894\)",
        ),
    ],
)
def test_arrays_of_another_kind_are_named(
    nyuv2: dict[str, Any], tmp_path: Path, name: str, values: Any, message: str
) -> None:
    rewrite(nyuv2["files"][0], name, values)
    with pytest.raises(ValueError, match=message):
        write_nyuv2(*nyuv2["files"], tmp_path / "nyuv2")


def test_files_that_are_not_nyus_are_errors_that_name_them(nyuv2: dict[str, Any], tmp_path: Path) -> None:
    labeled, splits, mapping = nyuv2["files"]
    output = tmp_path / "nyuv2"
    with pytest.raises(ValueError, match=r"Expected a variable 'mapClass' in .*splits\.mat, found none"):
        write_nyuv2(labeled, splits, splits, output)
    with pytest.raises(ValueError, match=r"a version before 7\.3, .*labeled\.mat cannot be read"):
        write_nyuv2(labeled, labeled, mapping, output)
    with pytest.raises(ValueError, match=r"MATLAB file of version 7\.3, .*splits\.mat cannot be read"):
        write_nyuv2(splits, splits, mapping, output)
    with h5py.File(labeled, "a") as file:
        del file["depths"]
    with pytest.raises(ValueError, match=r"Expected depths of 3 dimensions and floating values in .*, got none"):
        write_nyuv2(labeled, splits, mapping, output)
    mapping.write_bytes(mapping.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"classMapping40\.mat"):
        write_nyuv2(labeled, splits, mapping, output)
    assert not output.exists()


# From a configuration


def test_a_configuration_names_the_data_set_and_its_own_arguments(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", str(root))
    parser = ArgumentParser()
    parser.add_argument("--data", type=Callable[[dict[str, Modality], Transform], ImageMaps])  # type: ignore[arg-type]
    config = {"class_path": "taskrobust.vision.data.ImageFolders", "init_args": {"root": "$IMAGES", "on_error": "skip"}}
    made = parser.instantiate(parser.parse_args([f"--data={json.dumps(config)}"]))
    data = made.data(MODALITIES, CROP)
    assert isinstance(data, ImageFolders)
    assert len(data) == 6
    assert data.on_error == "skip"


# Real data


@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA names no folder with NYUv2")
def test_nyuv2_is_read_with_its_classes_and_depth_in_metres() -> None:
    # The labels of this copy start at 0, and unlabeled pixels are in the last one.
    modalities = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg(num_classes=39, void=39)}
    root = Path(os.environ["TASKROBUST_DATA"]) / "nyuv2"
    for split, images in (("train", 795), ("val", 654)):
        data = ImageFolders(modalities, JointCrop(224), root=root, split=split)
        assert len(data) == images
        batch = MaeCollate(modalities, 224)(data.__getitems__([(index, 0) for index in range(0, 100, 5)]))
        assert batch["present"].all()
        known = batch["depth"][batch["depth"] > 0]
        assert 1 < known.median() < 5
        assert known.max() < 11
        labels = batch["semseg"]
        assert ((labels < 39) | (labels == 255)).all()
        assert 0.5 < (labels < 39).float().mean() < 1
        assert labels[labels < 39].mode().values == 0  # walls
        assert 60 < batch["rgb"].float().mean() < 160


@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA names no folder with Imagenette")
def test_imagenette_is_read_as_imagenet() -> None:
    data = ImageNet({"rgb": Rgb()}, JointCrop(96), root=Path(os.environ["TASKROBUST_DATA"]) / "imagenette", split="val")
    assert len(data) == 500
    assert data.classes[:2] == ["n01440764", "n02102040"]
    samples = data.__getitems__([(0, 0), (499, 0)])
    assert [sample["label"].item() for _, sample in samples] == [0, 9]
