import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    AutoImageProcessor,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

from taskrobust.commands.pseudo_label import MANIFEST, find_images, pseudo_label
from taskrobust.vision.modalities import Depth, Rgb, SemSeg
from taskrobust.vision.pseudo_labels import label_images as images_module
from taskrobust.vision.pseudo_labels import labelers as labellers_module
from taskrobust.vision.pseudo_labels.labelers import DepthLabeler, SemSegLabeler, depth_in_16_bits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random DPT of 26 thousand parameters."""
    folder = tmp_path_factory.mktemp("dpt")
    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
    )
    DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def save_mask2former(folder: Path, num_labels: int) -> str:
    torch.manual_seed(0)
    backbone = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        image_size=32,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=5,
        num_labels=num_labels,
    )
    model = Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=2)  # so that the queries differ and the classes, too
    for layer in model.model.transformer_module.decoder.mask_predictor.mask_embedder.modules():
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=1)
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Mask2Former of 117 thousand parameters and the 133 classes of COCO."""
    return save_mask2former(tmp_path_factory.mktemp("mask2former"), num_labels=133)


def picture(seed: int, height: int = 24, width: int = 36) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Nine images in two classes, of two sizes."""
    folder = tmp_path / "rgb"
    for index in range(9):
        name = f"{'cat' if index < 5 else 'dog'}/{index}{('.jpg', '.JPEG', '.png')[index % 3]}"
        save(picture(index, *((24, 36) if index % 4 else (40, 24))), folder / name)
    return folder


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Two images."""
    for index in range(2):
        save(picture(index), tmp_path / f"few/all/{index}.png")
    return tmp_path / "few"


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def read(path: Path) -> NDArray[Any]:
    return np.array(opened(path))


def maps(folder: Path) -> dict[str, NDArray[Any]]:
    return {str(path.relative_to(folder)): read(path) for path in sorted(folder.rglob("*.png"))}


def assert_close(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> None:
    """The same maps, but for the last bits: a batch of another size may be summed in another order."""
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        np.testing.assert_allclose(first[name].astype(float), second[name].astype(float), atol=3, err_msg=name)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# The maps.


def test_every_image_gets_maps_of_its_own_size_that_the_modalities_read(
    source: Path, dpt: str, mask2former: str, tmp_path: Path
) -> None:
    pseudo_label(source, tmp_path / "out", depth_model=dpt, semseg_model=mask2former, batch_size=2, workers=0)
    names = {f"{'cat' if index < 5 else 'dog'}/{index}" for index in range(9)}
    expected = {f"{modality}/{name}.png" for modality in ("depth", "semseg") for name in names}
    assert files(tmp_path / "out") == expected | {MANIFEST}
    found = set()
    for image in find_images(source):
        stem = image.partition(".")[0]
        size = opened(source / image).size
        depth = opened(tmp_path / f"out/depth/{stem}.png")
        semseg = opened(tmp_path / f"out/semseg/{stem}.png")
        assert (depth.mode, semseg.mode) == ("I;16", "L")
        assert depth.size == semseg.size == size
        levels = np.array(depth)
        assert (levels.min(), levels.max()) == (1, 65_535)
        assert Depth().decode(depth).shape == (1, size[1], size[0])
        found |= set(SemSeg(num_classes=133).decode(semseg).unique().tolist())
    assert len(found) > 1
    assert max(found) < 133


def test_depth_is_the_model_s_prediction_enlarged_and_turned_round(source: Path, dpt: str, tmp_path: Path) -> None:
    pseudo_label(source, tmp_path / "out", depth_model=dpt, semseg_model=None, workers=0)
    model = DPTForDepthEstimation.from_pretrained(dpt).eval()
    image = opened(source / "cat/2.png")
    small = F.interpolate(
        torch.tensor(np.array(image)).permute(2, 0, 1)[None],
        (32, 32),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    with torch.inference_mode():
        inverse = model((small / 255 - 0.5) / 0.5).predicted_depth
        inverse = F.interpolate(inverse[:, None], (24, 36), mode="bicubic", align_corners=False)[0, 0].numpy()
    expected = 1 + 65_534 * (inverse.max() - inverse) / (inverse.max() - inverse.min())
    found = read(tmp_path / "out/depth/cat/2.png").astype(float)
    assert abs(found - expected).max() < 0.01 * 65_535  # the processor rounds the small image to bytes
    assert np.corrcoef(found.ravel(), inverse.ravel())[0, 1] < -0.99


def test_a_pixel_has_the_class_of_the_largest_sum_over_the_queries(few: Path, mask2former: str, tmp_path: Path) -> None:
    pseudo_label(few, tmp_path / "out", depth_model=None, semseg_model=mask2former, workers=0)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(mask2former).eval()
    image = opened(few / "all/1.png")
    pixels = AutoImageProcessor.from_pretrained(mask2former)(images=image, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        outputs = model(pixel_values=pixels)
        probability = outputs.class_queries_logits[0].softmax(-1)[:, :133]
        masks = F.interpolate(outputs.masks_queries_logits, (384, 384), mode="bilinear")[0].sigmoid()
        scores = torch.tensordot(probability, masks, dims=([0], [0]))
        scores = F.interpolate(scores[None], (24, 36), mode="bilinear")[0]
    found = read(tmp_path / "out/semseg/all/1.png")
    np.testing.assert_array_equal(found, scores.argmax(0).numpy())
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize(
    ("kind", "depth", "levels"),
    [
        ("metric", [0.0, 0.5, 2.25, 80.0, -0.25], [1, 500, 2250, 65_535, 1]),
        ("relative", [-2.0, -1.0, 0.0, 8.0, 3.0], [1, 6554, 13_108, 65_535, 32_768]),
        ("inverse", [-2.0, -1.0, 0.0, 8.0, 3.0], [65_535, 58_982, 52_428, 1, 32_768]),
    ],
)
def test_larger_levels_are_farther(kind: Any, depth: list[float], levels: list[int]) -> None:
    found = depth_in_16_bits(np.array([depth], dtype=np.float32), kind)
    assert found.dtype == np.uint16
    assert found.tolist() == [levels]


@pytest.mark.parametrize("kind", ["relative", "inverse"])
def test_a_constant_map_is_valid_everywhere(kind: Any) -> None:
    np.testing.assert_array_equal(depth_in_16_bits(np.full((2, 3), 7, np.float32), kind), 1)


def test_labels_of_a_huge_image_are_enlarged_from_smaller_ones(
    source: Path, mask2former: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeler = SemSegLabeler(mask2former, CPU)
    pixels = labeler.processor(images=picture(2, 48, 96), return_tensors="pt")["pixel_values"]
    exact = labeler(pixels, [(48, 96)])[0]
    monkeypatch.setattr(labellers_module, "_MOST_PIXELS", 24 * 48)
    halved = labeler(pixels, [(48, 96)])[0]
    np.testing.assert_array_equal(halved[::2, ::2], halved[1::2, 1::2])
    assert halved.shape == exact.shape
    assert (halved == exact).mean() > 0.9


# Images as pre-training reads them.


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "rotated"])
def test_any_color_mode_is_read_as_pre_training_reads_it(mode: str, dpt: str, tmp_path: Path) -> None:
    folder = tmp_path / "rgb/all"
    if mode == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees for display
        save(picture(0), folder / "image.jpg", exif=exif)
    else:
        save(picture(0).convert(mode), folder / f"image.{'jpg' if mode == 'CMYK' else 'png'}")
    colors = Rgb().decode(opened(next(folder.iterdir())))
    assert colors.shape == (3, 24, 36)
    save(Image.fromarray(colors.permute(1, 2, 0).numpy()), folder / "as_rgb.png")
    pseudo_label(tmp_path / "rgb", tmp_path / "out", depth_model=dpt, semseg_model=None, workers=0)
    np.testing.assert_array_equal(
        read(tmp_path / "out/depth/all/image.png"), read(tmp_path / "out/depth/all/as_rgb.png")
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_no_image_is_an_error_that_names_it_or_skipped_and_counted(
    workers: int, source: Path, dpt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "cat/text.jpg").write_text("no image")
    whole = (source / "dog/8.png").read_bytes()
    (source / "dog/8.png").write_bytes(whole[: len(whole) // 2])
    options: dict[str, Any] = {"depth_model": dpt, "semseg_model": None, "workers": workers}
    with pytest.raises(ValueError, match=r"Expected an image in .*cat/text\.jpg: .*use on_error skip\."):
        pseudo_label(source, tmp_path / "out", **options)
    pseudo_label(source, tmp_path / "out", on_error="skip", **options)
    assert len(maps(tmp_path / "out/depth")) == 8
    told = capsys.readouterr().err
    assert f"Skipped {source / 'cat/text.jpg'}: cannot identify image file" in told
    assert f"Skipped {source / 'dog/8.png'}: " in told
    assert "depth: 8 of 10 images, 2 skipped" in told
    (source / "dog/8.png").write_bytes(whole)
    (source / "cat/text.jpg").unlink()
    pseudo_label(source, tmp_path / "out", **options)
    assert len(maps(tmp_path / "out/depth")) == 9


def test_only_images_in_class_folders_are_found(source: Path) -> None:
    (source / "classes.txt").write_text("")
    (source / "cat/notes.txt").write_text("")
    (source / "cat/.hidden.png").write_text("")
    (source / "cat/folder.png").mkdir()
    names = [f"cat/{file}" for file in ("0.jpg", "1.JPEG", "2.png", "3.jpg", "4.JPEG")]
    assert find_images(source) == names + [f"dog/{file}" for file in ("5.png", "6.jpg", "7.JPEG", "8.png")]


def test_a_folder_of_another_layout_is_an_error_that_says_which(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a folder of class folders of images, .*missing is not a folder\."):
        find_images(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"Expected images in class folders such as .*cat/all, found some in .*cat"):
        find_images(source / "cat")
    with pytest.raises(ValueError, match=r"Expected images .* found none\. .*use ROOT/train/rgb\."):
        find_images(tmp_path)
    save(picture(0), source / "cat/0.png")
    with pytest.raises(ValueError, match=r"Expected one image of each name, found .*cat/0\.jpg and .*cat/0\.png\."):
        find_images(source)


# Going on, and sharing the work.


def test_finished_maps_are_kept_and_a_deleted_one_is_made_again(source: Path, dpt: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"depth_model": dpt, "semseg_model": None, "workers": 0}
    pseudo_label(source, tmp_path / "out", **options)
    before = maps(tmp_path / "out")
    deleted, *kept = sorted((tmp_path / "out/depth").rglob("*.png"))
    deleted.unlink()
    times = [path.stat().st_mtime_ns for path in kept]
    pseudo_label(source, tmp_path / "out", **options)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert_close(maps(tmp_path / "out"), before)


def test_a_run_that_breaks_off_leaves_only_whole_maps_and_goes_on(
    source: Path, dpt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"depth_model": dpt, "semseg_model": None, "workers": 0, "batch_size": 2}
    pseudo_label(source, tmp_path / "whole", **options)
    encode, encoded = DepthLabeler.encode, []

    def encode_four(self: DepthLabeler, map_: NDArray[Any]) -> NDArray[Any]:
        if len(encoded) == 4:
            raise OSError("No space left on device")
        encoded.append(map_)
        return encode(self, map_)

    with monkeypatch.context() as patch:
        patch.setattr(DepthLabeler, "encode", encode_four)
        with pytest.raises(OSError, match="No space left"):
            pseudo_label(source, tmp_path / "broken", **options)
    assert len(maps(tmp_path / "broken")) == 4
    half = tmp_path / "broken/depth/dog/.8.png.unfinished"  # what a killed process leaves behind
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    pseudo_label(source, tmp_path / "broken", **options)
    assert_close(maps(tmp_path / "broken"), maps(tmp_path / "whole"))
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_processes_of_torchrun_share_the_images(
    source: Path, dpt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"depth_model": dpt, "semseg_model": None, "workers": 0}
    pseudo_label(source, tmp_path / "one", **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, images in (("0", 5), ("1", 9)):
        monkeypatch.setenv("RANK", rank)
        pseudo_label(source, tmp_path / "two", **options)
        assert len(maps(tmp_path / "two/depth")) == images
    assert_close(maps(tmp_path / "two"), maps(tmp_path / "one"))
    assert (tmp_path / "two" / MANIFEST).read_text() == (tmp_path / "one" / MANIFEST).read_text()


@pytest.mark.slow
def test_a_killed_run_goes_on(dpt: str, mask2former: str, tmp_path: Path) -> None:
    for index in range(60):
        save(picture(index), tmp_path / f"rgb/all/{index}.png")
    options: dict[str, Any] = {"depth_model": dpt, "semseg_model": mask2former, "batch_size": 4}
    pseudo_label(tmp_path / "rgb", tmp_path / "whole", workers=0, **options)
    output = tmp_path / "killed"
    code = (
        "from pathlib import Path; from taskrobust.commands.pseudo_label import pseudo_label\n"
        f"pseudo_label(Path({str(tmp_path / 'rgb')!r}), Path({str(output)!r}), workers=1, **{options!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(output.glob("semseg/all/*.png"))) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in output.rglob("*.png") if not path.name.startswith(".")}
    assert 65 <= len(finished) < 120
    pseudo_label(tmp_path / "rgb", output, workers=0, **options)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert_close(maps(output), maps(tmp_path / "whole"))
    assert files(output) == files(tmp_path / "whole")


def test_a_batch_has_one_processed_size_and_rare_sizes_do_not_wait_for_ever() -> None:
    rng = np.random.default_rng(0)
    wide, tall, rare = torch.empty(3, 1, 2), torch.empty(3, 2, 1), [torch.empty(3, 3, 3 + i) for i in range(40)]
    pixels = [wide] * 60 + [tall] * 33 + rare
    images = [images_module._Read(str(i), (1, 1), pixels[i]) for i in rng.permutation(len(pixels))]
    seen: Counter[str] = Counter()
    batches = []
    for batch in images_module._batches((seen.update([image.name]) or image for image in images), batch_size=4):
        assert len({image.pixels.shape for image in batch}) == 1
        batches.append(batch)
        assert seen.total() - sum(map(len, batches)) < 64  # still waiting
    assert sorted(image.name for batch in batches for image in batch) == sorted(image.name for image in images)
    assert len([batch for batch in batches if batch[0].pixels is wide]) == 15
    assert max(map(len, batches)) == 4


# Which models made the maps.


def test_the_manifest_names_the_models(few: Path, dpt: str, mask2former: str, tmp_path: Path) -> None:
    pseudo_label(few, tmp_path / "out", depth_model=dpt, semseg_model=None, workers=0)
    pseudo_label(few, tmp_path / "out", depth_model=None, semseg_model=mask2former, workers=0)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest.keys() == {"depth", "semseg"}
    assert manifest["depth"] == {
        "model": dpt,
        "weights": DepthLabeler(dpt, CPU).provenance["weights"],
        "kind": "inverse",
    }
    assert manifest["semseg"]["model"] == mask2former
    assert manifest["semseg"]["classes"] == [f"LABEL_{label}" for label in range(133)]


def test_maps_of_another_model_or_of_unknown_origin_are_not_mixed_in(source: Path, dpt: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options: dict[str, Any] = {"semseg_model": None, "workers": 0}
    pseudo_label(source, output, depth_model=dpt, **options)

    shutil.copytree(dpt, tmp_path / "moved")
    pseudo_label(source, output, depth_model=str(tmp_path / "moved"), **options)

    weights = load_file(tmp_path / "moved/model.safetensors")
    weights["head.head.0.bias"] += 1
    save_file(weights, tmp_path / "moved/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"Expected the maps in .*out/depth to be of one model: they are of .*dpt.*"):
        pseudo_label(source, output, depth_model=str(tmp_path / "moved"), **options)
    with pytest.raises(
        ValueError, match=r"inverse\), this is .*metric\)\. Choose another output, or delete .*out/depth"
    ):
        pseudo_label(source, output, depth_model=dpt, depth_kind="metric", **options)

    shutil.rmtree(output / "depth")
    pseudo_label(source, output, depth_model=str(tmp_path / "moved"), **options)
    (output / MANIFEST).unlink()
    with pytest.raises(
        ValueError, match=r"Expected no maps in .*out/depth, or maps that are listed in .*, found others\."
    ):
        pseudo_label(source, output, depth_model=dpt, **options)


def test_weights_that_a_checkpoint_lacks_and_the_model_never_uses_do_not_tell_models_apart(
    dpt: str, tmp_path: Path
) -> None:
    """DPT's published checkpoints lack them, so they are random numbers each time."""
    shutil.copytree(dpt, tmp_path / "published")
    weights = load_file(tmp_path / "published/model.safetensors")
    unused = [name for name in weights if name.startswith("neck.fusion_stage.layers.0.residual_layer1.")]
    assert unused
    kept = {name: weight for name, weight in weights.items() if name not in unused}
    save_file(kept, tmp_path / "published/model.safetensors", metadata={"format": "pt"})
    first, second = (DepthLabeler(str(tmp_path / "published"), CPU) for _ in range(2))
    assert first.provenance == second.provenance
    assert first.provenance["weights"] != DepthLabeler(dpt, CPU).provenance["weights"]


# What cannot work.


def test_a_checkpoint_that_is_missing_or_of_another_task_is_an_error_that_names_it(
    source: Path, dpt: str, mask2former: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"Expected depth_model to be a folder with a model .*, got '.*missing': "):
        pseudo_label(source, tmp_path / "out", depth_model=str(tmp_path / "missing"), semseg_model=None)
    with pytest.raises(ValueError, match=r"Expected semseg_model to be a folder with .*, got '.*missing': "):
        pseudo_label(source, tmp_path / "out", depth_model=None, semseg_model=str(tmp_path / "missing"))
    with pytest.raises(
        ValueError, match=r"Expected depth_model to be .*mask2former.*: Unrecognized configuration class"
    ):
        pseudo_label(source, tmp_path / "out", depth_model=mask2former, semseg_model=None)
    with pytest.raises(ValueError, match=r"Expected semseg_model to be .*dpt.*: Unrecognized configuration class"):
        pseudo_label(source, tmp_path / "out", depth_model=None, semseg_model=dpt)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_head_is_an_error(dpt: str, tmp_path: Path) -> None:
    shutil.copytree(dpt, tmp_path / "trunk")
    weights = load_file(tmp_path / "trunk/model.safetensors")
    trunk = {name: weight for name, weight in weights.items() if not name.startswith("head.")}
    save_file(trunk, tmp_path / "trunk/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"Expected weights of the head 'head\.' in depth_model, '.*trunk' has none"):
        DepthLabeler(str(tmp_path / "trunk"), CPU)


def test_a_model_of_more_classes_than_a_byte_can_name_is_an_error(tmp_path: Path) -> None:
    checkpoint = save_mask2former(tmp_path, num_labels=256)
    with pytest.raises(ValueError, match=r"Expected semseg_model to have at most 255 classes, .* has 256\."):
        SemSegLabeler(checkpoint, CPU)


def test_what_a_model_predicts_is_asked_where_its_configuration_does_not_say(dpt: str) -> None:
    config = DPTForDepthEstimation.from_pretrained(dpt).config
    assert labellers_module._depth_kind(config) == "inverse"
    config.backbone_config = Dinov2Config()
    assert labellers_module._depth_kind(config) is None
    labeler = DepthLabeler.__new__(DepthLabeler)
    labeler.kind, labeler.checkpoint = None, "facebook/dpt-dinov2-base-nyu"
    with pytest.raises(ValueError, match=r"Expected depth_kind to say what 'facebook/dpt-dinov2-base-nyu' predicts"):
        labeler._describe(config)
    labeler.kind = "metric"
    assert labeler._describe(config) == {"kind": "metric"}


def test_numbers_that_are_not_finite_are_an_error(dpt: str, mask2former: str) -> None:
    for labeler, size in ((DepthLabeler(dpt, CPU), (32, 32)), (SemSegLabeler(mask2former, CPU), (64, 64))):
        next(labeler.model.parameters()).data.fill_(torch.nan)
        with pytest.raises(
            ValueError, match=r"Expected finite numbers from .*, got NaN or infinity at precision 'fp32'\."
        ):
            labeler(torch.zeros(1, 3, *size), [(24, 36)])


def test_bf16_gives_nearly_the_maps_of_float32(few: Path, dpt: str, mask2former: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"depth_model": dpt, "semseg_model": mask2former, "workers": 0}
    for precision in ("fp32", "bf16"):
        pseudo_label(few, tmp_path / precision, precision=precision, **options)
    exact, rounded = maps(tmp_path / "no"), maps(tmp_path / "bf16")
    for name in exact:
        if name.startswith("depth"):
            assert np.corrcoef(exact[name].ravel(), rounded[name].ravel())[0, 1] > 0.95
        else:
            assert (exact[name] == rounded[name]).mean() > 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "Expected batch_size from 1 and workers from 0, got 0 and 2."),
        ({"workers": -1}, "Expected batch_size from 1 and workers from 0, got 8 and -1."),
        ({"depth_model": None, "semseg_model": None}, "Expected a depth_model or a semseg_model, got neither."),
        ({"precision": "fp16", "device": "cpu"}, "Expected an accelerator for precision fp16, got the CPU."),
    ],
)
def test_an_option_that_cannot_be_is_an_error(
    options: dict[str, Any], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        pseudo_label(source, tmp_path / "out", **options)
