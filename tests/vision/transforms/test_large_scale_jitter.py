import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.tv_tensors import TVTensor

from taskrobust.vision.modalities import Depth, SemSeg
from taskrobust.vision.transforms import LargeScaleJitter

SIZE = 64
MEAN = torch.tensor([124, 116, 104], dtype=torch.uint8)


def coordinates(height: int, width: int) -> TVTensor:
    """A map that says where each of its pixels is, in shares of its height and width [2, H, W]."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    return tv_tensors.Mask(torch.stack(torch.meshgrid(rows, columns, indexing="ij")))


def smooth_image(height: int, width: int) -> TVTensor:
    """Red rises with the row, green with the column: [3, H, W]."""
    where = coordinates(height, width).as_subclass(torch.Tensor)
    return tv_tensors.Image((255 * torch.cat([where, where[:1]])).round().to(torch.uint8))


def shown(where: TVTensor) -> tuple[int, int]:
    """Rows and columns of a canvas of ``coordinates`` that are no padding; no coordinate is 0."""
    known = where[0] > 0
    return int(known.any(1).sum()), int(known.any(0).sum())


def fixed(scale: float, flip: float = 0, size: int = SIZE) -> LargeScaleJitter:
    return LargeScaleJitter(size, scale=(scale, scale), flip=flip)


def test_all_maps_show_the_same_part_of_the_scene_whatever_their_resolution() -> None:
    maps = {"rgb": smooth_image(240, 320), "full": coordinates(240, 320), "half": coordinates(120, 160)}
    jitter = LargeScaleJitter(SIZE, scale=(0.5, 3))
    for index in range(30):
        crops = jitter(maps, (index, 0))
        assert all(crop.shape[-2:] == (SIZE, SIZE) for crop in crops.values())
        rows, columns = shown(crops["full"])
        assert shown(crops["half"]) == (rows, columns)
        shift = (crops["half"] - crops["full"]).abs().amax((1, 2))
        assert (shift <= torch.tensor([0.75 / 120, 0.75 / 160])).all()
        inner = (slice(None), slice(4, rows - 4), slice(4, columns - 4))
        colors = crops["rgb"][:2].float() / 255
        assert (colors[inner] - crops["full"][inner]).abs().max() < 0.02
        assert (crops["rgb"][:, rows:] == MEAN[:, None, None]).all()
        assert (crops["rgb"][:, :, columns:] == MEAN[:, None, None]).all()


def test_an_image_of_lower_resolution_than_its_map_is_aligned_to_a_pixel() -> None:
    maps = {"rgb": smooth_image(60, 80), "full": coordinates(240, 320)}
    for index in range(10):
        crops = LargeScaleJitter(SIZE, scale=(1, 3))(maps, (index, 0))
        rows, columns = shown(crops["full"])
        inner = (slice(None), slice(5, rows - 5), slice(5, columns - 5))
        assert (crops["rgb"][:2].float()[inner] / 255 - crops["full"][inner]).abs().max() < 1 / 60


def test_what_is_not_covered_is_unknown_in_each_map() -> None:
    maps = {
        "rgb": tv_tensors.Image(torch.zeros(3, 48, 64, dtype=torch.uint8)),
        "depth": Depth().decode(Image.fromarray(np.full((48, 64), 2000, dtype=np.uint16))),
        "semseg": SemSeg(num_classes=5, stride=1).decode(Image.fromarray(np.full((48, 64), 3, dtype=np.uint8))),
    }
    canvas = fixed(0.5)(maps, (0, 0))
    covered = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    covered[:24, :32] = True
    assert torch.equal((canvas["rgb"] == 0).all(0), covered)
    assert torch.equal(canvas["depth"][0] == 2, covered)
    assert torch.equal(canvas["semseg"][0] == 3, covered)
    for name, modality in (("depth", Depth()), ("semseg", SemSeg(stride=1))):
        packed = modality.pack(canvas[name])
        assert torch.equal(packed[..., ~covered], modality.missing(SIZE)[..., ~covered]), name
    assert [type(map_) for map_ in canvas.values()] == [type(map_) for map_ in maps.values()]
    assert [map_.dtype for map_ in canvas.values()] == [torch.uint8, torch.float32, torch.uint8]


def test_at_scale_one_the_whole_image_just_fits() -> None:
    for height, width, expected in ((48, 64, (48, 64)), (320, 160, (64, 32)), (10, 10, (64, 64))):
        where = fixed(1)({"where": coordinates(height, width)}, (1, 1))["where"]
        assert shown(where) == expected


def test_images_are_resized_as_pillow_does_by_bicubic_interpolation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    canvas = fixed(0.5)({"rgb": image}, (3, 1))["rgb"]
    expected = np.asarray(Image.fromarray(pixels).resize((32, 24), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(canvas[:, :24, :32].permute(1, 2, 0).numpy() - expected).max() <= 2


def test_where_the_image_is_larger_all_of_its_parts_are_taken_alike() -> None:
    maps = {"where": coordinates(64, 64)}
    first = torch.stack([fixed(2)(maps, (index, 0))["where"][:, 0, 0] for index in range(300)])
    assert first.amin(0).tolist() == pytest.approx([0, 0], abs=0.02)
    assert first.amax(0).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert first.mean(0).tolist() == pytest.approx([0.25, 0.25], abs=0.03)


def test_factors_are_drawn_evenly() -> None:
    maps = {"where": coordinates(50, 50)}
    jitter = LargeScaleJitter(100, scale=(0.1, 0.9))
    sides = np.array([shown(jitter(maps, (index, 0))["where"])[0] for index in range(400)]) / 100
    assert np.quantile(sides, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.06)


def test_a_mirrored_image_is_mirrored_before_it_is_padded() -> None:
    maps = {"rgb": smooth_image(48, 64), "where": coordinates(48, 64)}
    plain, mirrored = fixed(0.5, flip=0)(maps, (5, 2)), fixed(0.5, flip=1)(maps, (5, 2))
    for name in maps:
        assert torch.equal(mirrored[name][:, :24, :32], plain[name][:, :24, :32].flip(-1))
        assert torch.equal(mirrored[name][:, :, 32:], plain[name][:, :, 32:])


def test_the_result_is_a_function_of_seed_index_and_epoch_alone() -> None:
    maps = {"where": coordinates(60, 80)}
    jitter = LargeScaleJitter(SIZE, seed=7)
    first = jitter(maps, (5, 2))["where"]
    jitter(maps, (6, 2))
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(LargeScaleJitter(SIZE, seed=7)(maps, (5, 2))["where"], first)
    for other in (jitter(maps, (6, 2)), jitter(maps, (5, 3)), LargeScaleJitter(SIZE, seed=8)(maps, (5, 2))):
        assert not torch.equal(other["where"], first)


def test_the_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    LargeScaleJitter(SIZE)({"where": coordinates(60, 80), "rgb": smooth_image(60, 80)}, (5, 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_the_smallest_image_keeps_a_pixel() -> None:
    canvas = fixed(0.001)({"labels": tv_tensors.Mask(torch.full((1, 30, 40), 7, dtype=torch.uint8))}, (0, 0))["labels"]
    assert canvas[0, 0, 0] == 7
    assert (canvas == 255).sum() == SIZE**2 - 1


@pytest.mark.parametrize("scale", [(0.0, 1.0), (2.0, 1.0)])
def test_an_impossible_range_is_an_error(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"Expected a scale \(smallest, largest\) above 0, got"):
        LargeScaleJitter(SIZE, scale=scale)
