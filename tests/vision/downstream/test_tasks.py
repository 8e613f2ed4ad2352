import re
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors

from taskrobust.vision.data import Images
from taskrobust.vision.downstream import Classification, DepthEstimation, LinearProbe, Segmentation
from taskrobust.vision.downstream.augmentation import Augmentation, Crops, LargeScale, RandAugment
from taskrobust.vision.downstream.depth_estimation import berhu

VOID = 255


class Pictures:
    """Images of which only the classes are looked at."""

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes


def splits(**classes: list[str]) -> dict[str, Images]:
    return {split: cast(Images, Pictures(of_split)) for split, of_split in classes.items()}


def test_berhu_is_linear_below_a_fifth_of_the_largest_error_of_the_image() -> None:
    rng = np.random.default_rng(0)
    errors, known = rng.normal(size=(4, 5, 6)), rng.random((4, 5, 6)) < 0.7
    errors[~known] *= 100  # must not set the threshold
    expected = np.zeros_like(errors)
    for image in range(4):
        largest = max(abs(e) for e, k in zip(errors[image].flat, known[image].flat, strict=True) if k)
        c = largest / 5
        for place in np.ndindex(5, 6):
            e = abs(errors[image][place])
            expected[image][place] = e if e <= c else (e**2 + c**2) / (2 * c)
    losses = berhu(torch.from_numpy(errors), torch.from_numpy(known)).numpy()
    np.testing.assert_allclose(losses[known], expected[known], rtol=1e-12)


def test_berhu_of_an_image_does_not_depend_on_the_others() -> None:
    errors, known = torch.randn(3, 4, 4), torch.rand(3, 4, 4) < 0.8
    torch.testing.assert_close(berhu(errors, known)[1:2], berhu(errors[1:2], known[1:2]))


def test_berhu_is_finite_where_nothing_is_known_or_all_is_right() -> None:
    errors = torch.zeros(2, 3, 3, requires_grad=True)
    losses = berhu(errors, torch.tensor([True, False])[:, None, None].expand(2, 3, 3))
    losses.sum().backward()
    assert errors.grad is not None
    assert not losses.any()
    assert errors.grad.isfinite().all()


def test_labels_are_smooth_in_training_only() -> None:
    task, scores, labels = Classification(4, label_smoothing=0.2), torch.randn(3, 4), torch.tensor([0, 3, 1])
    logs = F.log_softmax(scores, dim=1)
    soft = 0.8 * F.one_hot(labels, 4) + 0.05
    torch.testing.assert_close(task.losses(scores, labels, {}, training=True), -(soft * logs).sum(1))
    torch.testing.assert_close(task.losses(scores, labels, {}, training=False), -logs[torch.arange(3), labels])


def test_mixed_images_have_soft_labels() -> None:
    scores, soft = torch.randn(3, 4), torch.rand(3, 4).softmax(1)
    losses = Classification(4).losses(scores, torch.zeros(3).long(), {"soft_labels": soft}, training=True)
    torch.testing.assert_close(losses, -(soft * F.log_softmax(scores, dim=1)).sum(1))


def test_classes_of_the_images_are_compared() -> None:
    with pytest.raises(ValueError, match=r"Expected images of 3 classes, got Pictures with 2: cat, dog\. Set num"):
        Classification(3).check(splits(train=["cat", "dog"]))
    with pytest.raises(ValueError, match=r"got Pictures with 0\. Set num_classes"):
        LinearProbe(3).check(splits(train=["cat", "cow", "dog"], test=[]))
    Segmentation(3).check(splits(train=[], test=["cat"]))


def test_all_splits_have_the_same_classes() -> None:
    classes = ["cat", "cow", "dog"]
    Classification(3).check(splits(train=classes, held_out=classes, test=list(classes)))
    message = "Expected the same classes in all splits, got 'cat' in train and 'ant' in test as class 0."
    with pytest.raises(ValueError, match=re.escape(message)):
        LinearProbe(3).check(splits(train=classes, held_out=classes, test=["ant", "cat", "cow"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification(1), "Expected num_classes of at least 2, got 1."),
        (lambda: Classification(3, label_smoothing=1), "Expected a label_smoothing in [0, 1), got 1."),
        (lambda: Segmentation(300), "Expected num_classes from 1 to 255, as labels are bytes, got 300."),
        (lambda: Segmentation(40, void=256), "Expected a void label from 0 to 255, got 256."),
        (lambda: DepthEstimation(unit=0), "Expected a unit above 0 meters, got 0."),
        (lambda: DepthEstimation(largest=0), "Expected a largest depth above 0 meters, got 0."),
    ],
)
def test_errors_say_what_was_expected(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_labels_are_read_at_full_resolution() -> None:
    (labels,) = Segmentation(5).targets().values()
    crop = tv_tensors.Mask(torch.randint(5, (1, 6, 6), dtype=torch.uint8))
    assert torch.equal(labels.pack(crop), crop[0].as_subclass(torch.Tensor))


def test_pictures_show_prediction_and_target() -> None:
    truth = torch.randint(3, (2, 6, 6))
    truth[:, 0] = VOID
    right = F.one_hot(truth.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    pictures = Segmentation(3).pictures(right, truth)
    assert not pictures["target"][:, 0].any()
    np.testing.assert_array_equal(pictures["prediction"][:, 1:], pictures["target"][:, 1:])

    meters = 1 + torch.rand(2, 6, 6)
    pictures = DepthEstimation().pictures(meters, meters)
    np.testing.assert_array_equal(pictures["prediction"], pictures["target"])
    assert pictures["target"].shape == (2, 6, 6, 3)
    assert Classification(3).pictures(torch.zeros(2, 3), torch.zeros(2)) == {}


MAPS = {
    "rgb": tv_tensors.Image(torch.randint(256, (3, 20, 24), dtype=torch.uint8)),
    "semseg": tv_tensors.Mask(torch.randint(9, (1, 20, 24), dtype=torch.uint8)),
}


@pytest.mark.parametrize(
    "augmentation", [Crops(jitter=0.4, gray=0.3), LargeScale(jitter=0.4)], ids=lambda a: type(a).__name__
)
def test_maps_are_augmented_by_seed_and_key_alone(augmentation: Augmentation) -> None:
    once, again = (augmentation.transform(16, seed=3)(MAPS, (5, 1)) for _ in range(2))
    other = augmentation.transform(16, seed=3)(MAPS, (5, 2))
    assert {name: tuple(map_.shape) for name, map_ in once.items()} == {"rgb": (3, 16, 16), "semseg": (1, 16, 16)}
    assert all(torch.equal(once[name], again[name]) for name in MAPS)
    assert not torch.equal(once["rgb"], other["rgb"])
    assert augmentation.mixing(Segmentation(9), seed=0) is None


def test_colors_change_only_where_they_shall() -> None:
    still = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}
    square = {name: map_[:, :20, :20] for name, map_ in MAPS.items()}
    square = {name: tv_tensors.wrap(map_, like=MAPS[name]) for name, map_ in square.items()}
    plain = Crops(**still).transform(20, seed=0)(square, (0, 0))
    gray = Crops(**still, gray=1.0).transform(20, seed=0)(square, (0, 0))
    assert torch.equal(plain["rgb"], square["rgb"])
    assert torch.equal(gray["rgb"][0], gray["rgb"][1])
    assert torch.equal(gray["semseg"], square["semseg"])


def test_rand_augment_mixes_images_with_the_smoothing_of_the_task() -> None:
    mixing = RandAugment().mixing(Classification(4, label_smoothing=0.2), seed=0)
    assert mixing is not None
    images, labels = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.arange(4)
    _, soft = mixing(images, labels, (0, 0))
    assert soft.min() == pytest.approx(0.05)
    assert RandAugment(mixup=0, cutmix=0).mixing(Classification(4), seed=0) is None
    with pytest.raises(ValueError, match="Expected Classification or LinearProbe with RandAugment, got Segmentation"):
        RandAugment().mixing(Segmentation(4), seed=0)
