import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from timm.data.auto_augment import rand_augment_transform
from torchvision import tv_tensors
from torchvision.tv_tensors import TVTensor

from taskrobust.vision.transforms import ColorJitter, Compose, LargeScaleJitter, RandAugmentCrop
from taskrobust.vision.transforms.crops import CenterCrop, JointCrop, Transform

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
IMAGE = tv_tensors.Image(torch.from_numpy(PIXELS).permute(2, 0, 1))
LABELS = tv_tensors.Mask(torch.arange(40 * 60).view(1, 40, 60) % 7)


def bytes_of(image: TVTensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy().astype(int)


# For both


def rand_augment(seed: int = 0) -> Transform:
    return RandAugmentCrop(32, seed=seed)


def jitter(seed: int = 0) -> Transform:
    return ColorJitter(gray=0.3, seed=seed)


@pytest.mark.parametrize("make", [rand_augment, jitter])
def test_the_result_is_a_function_of_seed_index_and_epoch_alone(make: Callable[[int], Transform]) -> None:
    transform = make(7)
    keys = [(index, epoch) for index in range(8) for epoch in (0, 1)]
    first = [transform({"rgb": IMAGE}, key)["rgb"] for key in keys]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    again = [make(7)({"rgb": IMAGE}, key)["rgb"] for key in reversed(keys)]
    assert all(torch.equal(*pair) for pair in zip(first, reversed(again), strict=True))
    other = [make(8)({"rgb": IMAGE}, key)["rgb"] for key in keys]
    assert sum(torch.equal(*pair) for pair in zip(first, other, strict=True)) <= 1
    assert sum(torch.equal(one, two) for one in first for two in first) == len(keys)


@pytest.mark.parametrize("make", [rand_augment, jitter])
def test_the_global_generators_are_left_alone(make: Callable[[], Transform]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), np.random.get_state()[2], random.getstate()
    for index in range(5):
        make()({"rgb": IMAGE}, (index, 0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert np.random.get_state()[2] == before[2]
    assert random.getstate() == before[3]


@pytest.mark.parametrize("make", [rand_augment, jitter])
def test_kinds_and_types_stay(make: Callable[[], Transform]) -> None:
    out = make()({"rgb": IMAGE}, (0, 0))["rgb"]
    assert type(out) is tv_tensors.Image
    assert out.dtype == torch.uint8
    assert out.shape[0] == 3


# RandAugment


def test_crops_are_augmented_by_timm() -> None:
    np_seed = 5
    augment = RandAugmentCrop(32, scale=(1, 1), flip=0)
    augment._stream.seed = lambda key: np_seed  # type: ignore[method-assign]
    crop = JointCrop(32, scale=(1, 1), flip=0)({"rgb": IMAGE}, (2, 3))["rgb"]
    random.seed(np_seed)
    np.random.seed(np_seed)
    timm = rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": (124, 116, 104), "interpolation": 3})
    expected = np.asarray(timm(Image.fromarray(crop.permute(1, 2, 0).numpy())))
    assert (bytes_of(augment({"rgb": IMAGE}, (2, 3))["rgb"]) == expected).all()


def test_a_quarter_of_the_crops_has_no_operation() -> None:
    augment, crop = RandAugmentCrop(16, seed=3), JointCrop(16, scale=(0.08, 1), seed=3)
    keys = [(index, 0) for index in range(300)]
    plain = sum(torch.equal(augment({"rgb": IMAGE}, key)["rgb"], crop({"rgb": IMAGE}, key)["rgb"]) for key in keys)
    assert 50 < plain < 130  # of two operations each is left out half of the time, and some change nothing


def test_maps_that_would_no_longer_be_aligned_are_an_error() -> None:
    message = r"Expected a color image alone for RandAugment, got \['rgb', 'semseg'\]: it moves pixels"
    with pytest.raises(ValueError, match=message):
        RandAugmentCrop(32)({"rgb": IMAGE, "semseg": LABELS}, (0, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"magnitude": 11}, "Expected a magnitude from 0 to 10, got 11"),
        ({"noise": -1.0}, "Expected a standard deviation of at least 0 for the noise, got -1.0"),
        ({"scale": (0.5, 0.2)}, "Expected a scale"),
    ],
)
def test_impossible_options_of_rand_augment_are_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandAugmentCrop(32, **options)


# Colors


@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_factors_are_those_of_pillow_and_drawn_evenly(name: str, enhance: Callable[[Image.Image], object]) -> None:
    only = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0} | {name: 0.5}
    jitter = ColorJitter(**only)
    pillow = enhance(Image.fromarray(PIXELS))
    candidates = np.stack([np.asarray(pillow.enhance(factor)) for factor in np.linspace(0.5, 1.5, 101)]).astype(int)
    factors = []
    for index in range(60):
        errors = np.abs(candidates - bytes_of(jitter({"rgb": IMAGE}, (index, 0))["rgb"])).mean((1, 2, 3))
        assert errors.min() < 1.5
        factors.append(0.5 + errors.argmin() / 100)
    assert np.quantile(factors, [0.02, 0.5, 0.98]) == pytest.approx([0.52, 1, 1.48], abs=0.13)


def test_the_hue_turns_and_brightness_stays() -> None:
    red = tv_tensors.Image(torch.tensor([200, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 4, 4))
    jitter = ColorJitter(brightness=0, contrast=0, saturation=0, hue=0.5)
    colors = torch.stack([jitter({"rgb": red}, (index, 0))["rgb"][:, 0, 0] for index in range(100)])
    assert set(colors.amax(1).tolist()) == {200}
    assert sum(colors.argmax(1).bincount(minlength=3) > 20) == 3


def test_some_images_become_gray() -> None:
    jitter = ColorJitter(gray=0.3)
    small = tv_tensors.Image(IMAGE[:, :6, :6])
    gray = [bool((out == out[:1]).all()) for out in (jitter({"rgb": small}, (i, 0))["rgb"] for i in range(300))]
    assert 60 < sum(gray) < 120


def test_no_change_leaves_colors_as_they_are() -> None:
    still = ColorJitter(brightness=0, contrast=0, saturation=0, hue=0)
    assert torch.equal(still({"rgb": IMAGE}, (0, 0))["rgb"], IMAGE)


def test_other_maps_keep_their_values() -> None:
    maps = {"rgb": IMAGE, "semseg": LABELS, "depth": tv_tensors.Mask(torch.rand(1, 20, 30))}
    out = jitter()(maps, (0, 0))
    assert list(out) == list(maps)
    assert out["semseg"] is LABELS
    assert out["depth"] is maps["depth"]
    assert not torch.equal(out["rgb"], IMAGE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": 1.5}, r"Expected brightness, contrast and saturation from 0 to 1, got \(0.4, 1.5, 0.4\)"),
        ({"hue": 0.6}, "Expected a hue from 0 to 0.5, got 0.6"),
    ],
)
def test_impossible_options_of_color_jitter_are_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColorJitter(**options)


# Several


def test_transforms_are_applied_one_after_the_other() -> None:
    maps = {"rgb": IMAGE, "semseg": LABELS}
    both = Compose([jitter(), LargeScaleJitter(32)])(maps, (4, 1))
    one_by_one = LargeScaleJitter(32)(jitter()(maps, (4, 1)), (4, 1))
    assert all(torch.equal(both[name], one_by_one[name]) for name in maps)
    turned_round = Compose([CenterCrop(32), jitter()])(maps, (4, 1))
    assert torch.equal(turned_round["semseg"], CenterCrop(32)(maps, (4, 1))["semseg"])
