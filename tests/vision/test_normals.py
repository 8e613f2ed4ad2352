"""Surface normals, as a modality of pre-training and as a downstream task."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taskrobust.cli import run
from taskrobust.outputs import Outputs, TaskLosses
from taskrobust.training.results import read_results
from taskrobust.vision.data import ImageFolders
from taskrobust.vision.downstream import SurfaceNormals
from taskrobust.vision.downstream.base import Predicted
from taskrobust.vision.downstream.rooms import write_room_images
from taskrobust.vision.modalities import Normals, Rgb
from taskrobust.vision.modalities.normals import normals_from_depth
from taskrobust.vision.transforms.crops import CenterCrop, JointCrop


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rooms of 40 pixels to train on, 8 held out."""
    folder = tmp_path_factory.mktemp("rooms")
    write_room_images(folder, "train", 24, size=40)
    write_room_images(folder, "val", 8, size=40)
    return folder


def vectors(encoded: np.ndarray) -> np.ndarray:
    return Normals().decode(Image.fromarray(encoded))[:3].numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.6, 0, 0.8), (-0.3, 0.5, 0.812404), (0, 0.9, 0.43589)])
def test_the_normals_of_a_plane_are_those_of_the_plane(normal: tuple[float, float, float]) -> None:
    height, width, focal = 30, 40, 0.9
    x, y = np.meshgrid(
        (np.arange(width) + 0.5 - width / 2) / (width * focal), (height / 2 - np.arange(height) - 0.5) / (width * focal)
    )
    facing = normal[2] - normal[0] * x - normal[1] * y  # n · (x, y, -1) d = -2
    depth = np.where(facing > 0.3, 2 / np.maximum(facing, 0.3), 0).astype(np.float32)
    found = vectors(normals_from_depth(depth, focal))
    known = found.any(-1)
    assert known.mean() > 0.3
    np.testing.assert_allclose(found[known], np.broadcast_to(normal, found.shape)[known], atol=0.02)


def test_normals_are_unknown_at_jumps_and_beside_unknown_depth() -> None:
    depth = np.full((6, 8), 2, np.float32)
    depth[:, 4:] = 3
    depth[0, 0] = 0
    known = vectors(normals_from_depth(depth, 1.0)).any(-1)
    expected = np.ones((6, 8), bool)
    expected[:, 3:5] = expected[0, :2] = expected[1, 0] = False
    assert (known == expected).all()


def test_a_mirrored_crop_has_mirrored_normals(rooms: Path) -> None:
    maps = {"rgb": Rgb(), "normals": Normals()}
    still, flipped = (JointCrop(40, scale=(1, 1), ratio=(1, 1), flip=flip) for flip in (0.0, 1.0))
    samples = [
        ImageFolders(maps, crop, root=rooms, split="train").__getitems__([(0, 0)])[0][1] for crop in (still, flipped)
    ]
    assert torch.equal(samples[0]["rgb"].flip(-1), samples[1]["rgb"])
    mirrored = samples[0]["normals"].flip(-1) * torch.tensor([-1, 1, 1])[:, None, None]
    assert samples[0]["normals"].any()
    assert torch.equal(samples[1]["normals"], mirrored)


def test_the_loss_is_one_minus_the_cosine_over_known_pixels() -> None:
    maps = torch.nn.functional.normalize(torch.randn(2, 3, 8, 8), dim=1)
    maps[0, :, :3] = 0
    prepared = Normals().prepare(maps, torch.ones(2, dtype=torch.bool), 8)
    prediction = torch.randn(2, 1, 192)
    sums, numbers = Normals().patch_losses(prediction, prepared)
    cosine = torch.nn.functional.cosine_similarity(prediction.view(2, 3, 8, 8), maps, dim=1)
    losses = (1 - cosine).where(maps.any(1), 0)
    torch.testing.assert_close(sums[:, 0], losses.sum((1, 2)))
    assert numbers.tolist() == [[40], [64]]


def test_files_in_other_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected normals in 3 channels of 8 bits, got an image of mode 'L'"):
        Normals().decode(Image.new("L", (4, 4)))


def test_angles_are_those_of_numpy() -> None:
    truth = torch.nn.functional.normalize(torch.randn(3, 3, 6, 6, dtype=torch.float64), dim=1)
    prediction = truth + 0.4 * torch.randn_like(truth)
    truth[1, :, 2:] = SurfaceNormals.unknown
    task, scores = SurfaceNormals(), SurfaceNormals().scores(torch.device("cpu"))
    scores.update(Outputs(TaskLosses(torch.zeros(1), torch.zeros(1)), predictions=Predicted(prediction, truth)), {})
    known = (truth[:, 0] != task.unknown).numpy()
    cosine = (prediction * truth).sum(1).numpy() / np.linalg.norm(prediction.numpy(), axis=1)
    angles = np.degrees(np.arccos(cosine[known]))
    expected = {"mean_angle": angles.mean()} | {f"within_{d:g}": (angles < d).mean() for d in (11.25, 22.5, 30)}
    assert scores.compute() == pytest.approx(expected, abs=1e-9)


def test_pixels_without_a_normal_have_no_loss() -> None:
    normals = torch.zeros(1, 3, 4, 4)
    normals[:, 0, 0] = 1
    task = SurfaceNormals()
    truth = task.truth({"normals": normals})
    known = truth != task.unknown
    assert known.sum() == 12
    losses = task.losses(normals + 0.0, truth, {}, training=True)
    assert losses.shape == truth.shape
    assert losses[known].abs().max() < 1e-6
    pictures = task.pictures(normals, truth)
    assert not pictures["target"][0, 1:].any()
    assert (pictures["target"][0, 0] == pictures["prediction"][0, 0]).all()


def test_four_maps_are_pretrained_and_normals_fine_tuned_by_configuration(rooms: Path, tmp_path: Path) -> None:
    data = {
        split: {"class_path": "ImageFolders", "init_args": {"root": str(rooms), "split": files}}
        for split, files in (("train", "train"), ("held_out", "val"), ("test", "val"))
    }
    common = {"loop": {"steps": 2, "batch_size": 4}, "optim": {"lr": 1e-3}, "device": {"precision": "fp32"}}
    semseg = {"class_path": "SemSeg", "init_args": {"num_classes": 32}}
    maps = {"rgb": "Rgb", "depth": "Depth", "semseg": semseg, "normals": "Normals"}
    sizes = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "visible": 8}
    decoders = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    pretraining = {"train": data["train"], "held_out": data["held_out"], "modalities": maps, "mae": sizes | decoders}
    evaluation = run("pretrain-mae", common | pretraining | {"output": str(tmp_path / "mae")})
    assert list(evaluation.risks) == list(maps)

    task = {"class_path": "SurfaceNormals", "init_args": {"channels": 8}}
    finetuning = {"model": str(tmp_path / "mae"), "task": task, "output": str(tmp_path / "normals")}
    run("finetune-vision", common | data | finetuning)
    (result,) = read_results(tmp_path / "normals")
    assert (result.task, result.metric) == ("normals", "within_11.25")


def test_held_out_crops_keep_their_normals(rooms: Path) -> None:
    images = ImageFolders({"normals": Normals()}, CenterCrop(32), root=rooms, split="val")
    normals = images.__getitems__([(1, 0)])[0][1]["normals"]
    lengths = normals.norm(dim=0)
    assert normals.shape == (3, 32, 32)
    torch.testing.assert_close(lengths[lengths > 0], torch.ones_like(lengths[lengths > 0]))
