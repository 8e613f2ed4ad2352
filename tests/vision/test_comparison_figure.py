from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from taskrobust.vision.downstream.depth_estimation import depth_pictures
from taskrobust.vision.downstream.segmentation import segmentation_pictures
from taskrobust.vision.figures import comparison_figure
from taskrobust.vision.modalities import Depth, SemSeg

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def plain(images: int, color: tuple[int, int, int], height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array(color, dtype=np.uint8), (images, height, width, 3))


def test_a_column_has_its_pictures_below_each_other_in_order(tmp_path: Path) -> None:
    columns = {title: plain(4, color).copy() for title, color in zip("abc", COLOURS, strict=True)}
    columns["b"][2] = 77
    comparison_figure(columns, tmp_path / "figure.png")
    sheet = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    middles = []
    for color in COLOURS:
        of_color = (np.abs(sheet - color) < 3).all(2)
        middles.append(np.nonzero(of_color)[1].mean())
    assert middles == sorted(middles)
    of_green = np.nonzero((np.abs(sheet - COLOURS[1]) < 3).all(2))[0]
    other = np.nonzero((np.abs(sheet - 77) < 3).all(2))
    assert of_green.min() < other[0].mean() < of_green.max()
    assert abs(other[1].mean() - middles[1]) < 5
    assert (other[0].mean() - of_green.min()) / (of_green.max() - of_green.min()) == pytest.approx(2.5 / 4, abs=0.03)


def test_columns_may_have_different_resolutions_and_long_titles(tmp_path: Path) -> None:
    columns = {"input": plain(2, COLOURS[0]), "softmax minimax on initial risks": plain(2, COLOURS[1], 80, 120)}
    comparison_figure(columns, tmp_path / "figure.png")
    sheet = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    areas = [(np.abs(sheet - color) < 3).all(2).sum() for color in COLOURS[:2]]
    assert areas[0] == pytest.approx(areas[1], rel=0.05)
    assert list(tmp_path.iterdir()) == [tmp_path / "figure.png"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "Expected columns of the same images, at least one, got these numbers of them: {}"),
        ({"a": plain(0, COLOURS[0])}, "at least one, got these numbers of them: {'a': 0}"),
        ({"a": plain(2, COLOURS[0]), "b": plain(3, COLOURS[0])}, "got these numbers of them: {'a': 2, 'b': 3}"),
        ({"a": np.zeros((2, 4, 4), np.uint8)}, r"Expected RGB bytes \[N, H, W, 3\] in the column 'a', got uint8"),
        ({"a": np.zeros((2, 4, 4, 3))}, r"Expected RGB bytes .* in the column 'a', got float64 \(2, 4, 4, 3\)"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(columns: dict[str, NDArray[np.uint8]], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        comparison_figure(columns, tmp_path / "figure.png")


def test_classes_have_the_colors_of_the_pictures_of_pre_training() -> None:
    labels = torch.tensor([[[0, 1, 2, 3], [4, 30, 255, 0]]])
    pictures = segmentation_pictures(labels)
    assert pictures.shape == (1, 2, 4, 3)
    assert pictures.dtype == np.uint8
    modality = SemSeg(stride=2)
    packed = labels.to(torch.uint8)
    prepared = modality.prepare(packed, torch.tensor([True]), patch_size=2)
    coarse = modality.picture(prepared.values, prepared)
    assert (pictures == coarse[:, ::2, ::2]).all()
    assert (pictures[0, 1, 2] == 0).all()
    assert len(np.unique(pictures.reshape(-1, 3), axis=0)) == 7
    assert (segmentation_pictures(packed) == pictures).all()


def test_depths_are_colored_by_the_true_range_of_their_image() -> None:
    truth = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[5.0, 9.0], [7.0, 6.0]]])
    true = depth_pictures(truth, truth)
    assert (true[0, 1, 1] == 0).all()  # unknown
    assert (true[0, 0, 0] == true[1, 0, 0]).all()  # the nearest of both
    assert (true[0, 0, 1] == true[1, 1, 0]).all()  # half-way
    prepared = Depth().prepare(truth[:, None], torch.tensor([True, True]), patch_size=2)
    assert np.abs(true.astype(int) - Depth().picture(prepared.values, prepared).astype(int)).max() <= 1
    predicted = depth_pictures(torch.full_like(truth, 2.0), truth)
    assert (predicted[0] == true[0, 0, 1]).all()
    assert (predicted[1] == true[1, 0, 0]).all()  # nearer than anything true
