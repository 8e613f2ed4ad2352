import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.tv_tensors import TVTensor

from taskrobust.vision.transforms.crops import CenterCrop, JointCrop


def coordinates(height: int, width: int) -> TVTensor:
    """A map that says where each of its pixels is, in shares of its height and width [2, H, W]."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    return tv_tensors.Mask(torch.stack(torch.meshgrid(rows, columns, indexing="ij")))


def smooth_image(height: int, width: int) -> TVTensor:
    """Red rises with the row, green with the column: [3, H, W]."""
    where = coordinates(height, width).as_subclass(torch.Tensor)
    return tv_tensors.Image((255 * torch.cat([where, where[:1]])).round().to(torch.uint8))


def rectangle(crop: TVTensor) -> tuple[float, float, float, float]:
    """Top, left, height and width of the part that a crop of ``coordinates`` shows, in shares, to half a pixel."""
    rows, columns = crop[0, :, 0].double(), crop[1, 0].double()
    return rows.min().item(), columns.min().item(), (rows.max() - rows.min()).item(), np.ptp(columns.numpy()).item()


def test_all_maps_show_the_same_part_of_the_scene_whatever_their_resolution() -> None:
    maps = {"rgb": smooth_image(240, 320), "full": coordinates(240, 320), "half": coordinates(120, 160)}
    crop = JointCrop(64)
    for index in range(20):
        crops = crop(maps, (index, 0))
        assert all(cut.shape[-2:] == (64, 64) for cut in crops.values())
        # The pixels that are taken lie within half a pixel of the places that they stand for.
        off = (crops["half"] - crops["full"]).abs().amax((1, 2))
        assert (off <= torch.tensor([0.75 / 120, 0.75 / 160])).all()
        colors = crops["rgb"][:2].float() / 255
        inner = (slice(None), slice(4, -4), slice(4, -4))
        assert (colors[inner] - crops["full"][inner]).abs().max() < 0.02


def test_an_image_of_lower_resolution_than_its_map_is_aligned_to_a_pixel() -> None:
    maps = {"rgb": smooth_image(60, 80), "full": coordinates(240, 320)}
    for index in range(20):
        crops = JointCrop(64)(maps, (index, 0))
        inner = (slice(None), slice(4, -4), slice(4, -4))
        assert (crops["rgb"][:2].float()[inner] / 255 - crops["full"][inner]).abs().max() < 1 / 60


def test_images_are_resized_as_pillow_does_by_bicubic_interpolation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    maps = {"rgb": image, "where": coordinates(90, 120)}
    for size in (32, 200):
        crops = JointCrop(size, scale=(0.5, 0.5), ratio=(1, 1), flip=0)(maps, (3, 1))
        side = round((0.5 * 90 * 120) ** 0.5)
        top, left = _first_pixels(maps, (3, 1))
        box = (left, top, left + side, top + side)
        expected = Image.fromarray(pixels).crop(box).resize((size, size), Image.Resampling.BICUBIC)
        difference = crops["rgb"].permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int)
        assert np.abs(difference).max() <= 2


def _first_pixels(maps: dict[str, TVTensor], key: tuple[int, int]) -> tuple[int, int]:
    """Where the crop of the test above starts: it is enlarged, so that its first pixel is the rectangle's."""
    height, width = maps["where"].shape[-2:]
    top, left, _, _ = rectangle(JointCrop(500, scale=(0.5, 0.5), ratio=(1, 1), flip=0)(maps, key)["where"])
    return int(top * height), int(left * width)


@pytest.mark.parametrize("size", [16, 50, 128])
def test_masks_take_the_pixel_at_the_center(size: int) -> None:
    labels = tv_tensors.Mask(torch.arange(64 * 64, dtype=torch.float32).view(1, 64, 64))
    crop = CenterCrop(size)({"semseg": labels}, (0, 0))["semseg"]
    nearest = [int((place + 0.5) * 64 / size) for place in range(size)]
    assert torch.equal(crop[0], labels[0][nearest][:, nearest])
    assert crop.dtype == torch.float32


def test_a_mirrored_crop_is_the_crop_from_right_to_left() -> None:
    maps = {"rgb": smooth_image(60, 80), "labels": coordinates(60, 80)}
    plain = JointCrop(32, flip=0)(maps, (5, 2))
    mirrored = JointCrop(32, flip=1)(maps, (5, 2))
    for name in maps:
        assert torch.equal(mirrored[name], plain[name].flip(-1))


def test_a_crop_is_a_function_of_seed_index_and_epoch_alone() -> None:
    maps = {"where": coordinates(60, 80)}
    crop = JointCrop(32, seed=7)
    first = crop(maps, (5, 2))["where"]
    crop(maps, (6, 2))
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(JointCrop(32, seed=7)(maps, (5, 2))["where"], first)
    for other in (crop(maps, (6, 2)), crop(maps, (5, 3)), JointCrop(32, seed=8)(maps, (5, 2))):
        assert not torch.equal(other["where"], first)


def test_a_crop_leaves_the_global_generators_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    JointCrop(32)({"where": coordinates(60, 80), "rgb": smooth_image(60, 80)}, (5, 2))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_rectangles_are_distributed_as_those_of_torchvision() -> None:
    maps = {"where": coordinates(300, 400)}
    crop = JointCrop(512)
    ours = np.array([rectangle(crop(maps, (index, 0))["where"]) for index in range(600)]) * [300, 400, 300, 400]
    torch.manual_seed(0)
    reference = RandomResizedCrop(512, (0.2, 1.0), (3 / 4, 4 / 3))
    theirs = np.array([[*reference.make_params([maps["where"]]).values()] for _ in range(600)])
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    for quantity in (
        lambda top, left, rows, columns: rows * columns / 300 / 400,
        lambda top, left, rows, columns: columns / rows,
        lambda top, left, rows, columns: top / 300,
        lambda top, left, rows, columns: (left + columns / 2) / 400,
    ):
        assert np.quantile(quantity(*ours.T), shares) == pytest.approx(
            np.quantile(quantity(*theirs.T), shares), abs=0.06
        )


def test_half_of_the_crops_are_mirrored() -> None:
    maps = {"where": coordinates(30, 40)}
    crops = [JointCrop(8)(maps, (index, 0))["where"] for index in range(500)]
    mirrored = sum(bool(crop[1, 0, 0] > crop[1, 0, -1]) for crop in crops)
    assert 200 < mirrored < 300


def test_an_image_too_narrow_for_any_rectangle_gives_the_middle() -> None:
    _, left, rows, columns = rectangle(JointCrop(64, flip=0)({"where": coordinates(20, 400)}, (0, 0))["where"])
    assert rows == pytest.approx(1, abs=0.1)
    assert columns == pytest.approx(20 * 4 / 3 / 400, abs=0.01)
    assert left + columns / 2 == pytest.approx(0.5, abs=0.01)


def test_the_crop_of_held_out_data_is_the_middle_of_the_resized_image() -> None:
    maps = {"where": coordinates(240, 320), "half": coordinates(120, 160), "rgb": smooth_image(240, 320)}
    for shorter, side in ((None, 1.0), (256, 224 / 256)):
        crops = CenterCrop(224, shorter=shorter)(maps, (9, 9))
        for name in ("where", "half"):
            top, left, rows, columns = rectangle(crops[name])
            assert top + rows / 2 == pytest.approx(0.5, abs=0.005)
            assert left + columns / 2 == pytest.approx(0.5, abs=0.005)
            assert (rows, columns) == pytest.approx((side, side * 3 / 4), abs=0.01)
        again = CenterCrop(224, shorter=shorter)(maps, (1, 2))
        assert all(torch.equal(again[name], crops[name]) for name in maps)


def test_kinds_and_types_of_the_maps_stay() -> None:
    maps = {"rgb": smooth_image(60, 80), "labels": tv_tensors.Mask(torch.ones(1, 60, 80, dtype=torch.uint8))}
    for transform in (JointCrop(32), CenterCrop(32)):
        crops = transform(maps, (0, 0))
        assert type(crops["rgb"]) is tv_tensors.Image
        assert type(crops["labels"]) is tv_tensors.Mask
        assert [crop.dtype for crop in crops.values()] == [torch.uint8, torch.uint8]


def test_a_map_of_one_pixel_fills_the_crop() -> None:
    maps = {"rgb": smooth_image(1, 1), "labels": tv_tensors.Mask(torch.full((1, 1, 1), 7))}
    crops = JointCrop(8)(maps, (0, 0))
    assert (crops["labels"] == 7).all()
    assert (crops["rgb"] == maps["rgb"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.5, 0.2)}, r"Expected a scale \(smallest, largest\) within \(0, 1\], got \(0.5, 0.2\)"),
        ({"scale": (0.0, 1.0)}, "Expected a scale"),
        ({"scale": (0.5, 1.5)}, "Expected a scale"),
        ({"ratio": (2.0, 1.0)}, r"Expected a ratio \(smallest, largest\) above 0, got \(2.0, 1.0\)"),
    ],
)
def test_an_impossible_range_is_an_error(options: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JointCrop(32, **options)
    with pytest.raises(ValueError, match="Expected the shorter side to be resized to at least 224, the crop, got 200"):
        CenterCrop(224, shorter=200)
