from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.vision.figures import predicted_pictures, prediction_grid
from taskrobust.vision.mae.model import MultiModalMae

HEADING, GAP = 16, 4
SIDE, TIMES = 32, 4  # 32 pixels become 128, the first multiple of at least 100
COLUMNS = {"rgb": 3, "depth": 3, "semseg": 3, "norm_rgb": 4}
LACKING = {"rgb": [], "depth": [0, 2], "semseg": [1, 2]}
GREY, WHITE = 128, 255

Picture = NDArray[np.uint8]


@pytest.fixture
def model(small_mae: Callable[..., MultiModalMae]) -> MultiModalMae:
    return small_mae()


@pytest.fixture
def columns(model: MultiModalMae, mae_batch: dict[str, Tensor]) -> dict[str, list[Picture]]:
    """The columns of each task, [6, 32, 32, 3] each."""
    sheet = prediction_grid(model, mae_batch)
    side = TIMES * SIDE
    number = sum(COLUMNS.values())
    assert sheet.dtype == np.uint8
    assert sheet.shape == (HEADING + 6 * (side + GAP), number * (side + GAP) - GAP, 3)
    padded = np.pad(sheet[HEADING:], ((0, 0), (0, GAP), (0, 0)), constant_values=WHITE)
    cells = padded.reshape(6, side + GAP, number, side + GAP, 3).transpose(2, 0, 1, 3, 4)
    assert (cells[:, :, side:] == WHITE).all()
    assert (cells[:, :, :, side:] == WHITE).all()
    enlarged = cells[:, :, :side, :side]
    small = enlarged[:, :, ::TIMES, ::TIMES]
    assert (enlarged == small.repeat(TIMES, 2).repeat(TIMES, 3)).all()
    remaining = iter(small)
    return {task: [next(remaining) for _ in range(count)] for task, count in COLUMNS.items()}


@pytest.fixture
def inputs(model: MultiModalMae, mae_batch: dict[str, Tensor]) -> dict[str, Picture]:
    """Pictures of the maps, white for those that a sample lacks."""
    pictures = {}
    for number, (name, modality) in enumerate(model.inputs.items()):
        prepared = modality.prepare(mae_batch[name], mae_batch["present"][:, number], model.patch_size)
        pictures[name] = modality.picture(prepared.values, prepared)
        pictures[name][LACKING[name]] = WHITE
    assert (pictures["rgb"] == mae_batch["rgb"].permute(0, 2, 3, 1).numpy()).all()
    return {**pictures, "norm_rgb": pictures["rgb"]}


@pytest.fixture
def masked(model: MultiModalMae, mae_batch: dict[str, Tensor]) -> dict[str, NDArray[np.bool_]]:
    """Which pixels the encoder does not see, [6, 32, 32]."""
    masks = model.budget(mae_batch["mask_keys"], mae_batch["present"], model.patches).masked
    pixels = masks.view(6, 3, 4, 4).numpy().repeat(8, 2).repeat(8, 3)
    maps = {name: pixels[:, number] for number, name in enumerate(model.inputs)}
    return {**maps, "norm_rgb": maps["rgb"]}


def test_the_target_is_the_input_and_white_where_there_is_none(
    columns: dict[str, list[Picture]], inputs: dict[str, Picture]
) -> None:
    for name in ("rgb", "depth", "semseg"):
        assert (columns[name][-1] == inputs[name]).all()
        assert (columns[name][-1][LACKING[name]] == WHITE).all()


def test_the_masked_input_is_gray_exactly_where_it_is_masked(
    columns: dict[str, list[Picture]], inputs: dict[str, Picture], masked: dict[str, NDArray[np.bool_]]
) -> None:
    for task in COLUMNS:
        shown = columns[task][-3]
        assert (shown[masked[task]] == GREY).all()
        assert (shown[~masked[task]] == inputs[task][~masked[task]]).all()


def test_the_prediction_stands_where_the_input_is_masked(
    model: MultiModalMae,
    mae_batch: dict[str, Tensor],
    columns: dict[str, list[Picture]],
    inputs: dict[str, Picture],
    masked: dict[str, NDArray[np.bool_]],
) -> None:
    predicted = predicted_pictures(model, mae_batch)
    assert list(predicted) == list(COLUMNS)
    for task in COLUMNS:
        shown = columns[task][-2]
        assert predicted[task].shape == inputs[task].shape
        assert (shown[masked[task]] == predicted[task][masked[task]]).all()
        assert (shown[~masked[task]] == inputs[task][~masked[task]]).all()
        assert (predicted[task] != inputs[task]).any()


def test_the_prediction_of_a_map_that_a_sample_lacks_is_drawn(columns: dict[str, list[Picture]]) -> None:
    for name, lacking in LACKING.items():
        for picture in columns[name][-2][lacking]:
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2


def test_relative_colors_have_an_input_and_a_target_of_their_own(
    model: MultiModalMae,
    mae_batch: dict[str, Tensor],
    columns: dict[str, list[Picture]],
    inputs: dict[str, Picture],
) -> None:
    source, _, _, target = columns["norm_rgb"]
    assert (source == inputs["rgb"]).all()
    prepared = model.inputs["rgb"].prepare(mae_batch["rgb"], mae_batch["present"][:, 0], model.patch_size)
    assert (target == model.modalities["norm_rgb"].picture(prepared.values, prepared)).all()


def test_pictures_of_a_hundred_pixels_and_more_keep_their_size(small_mae: Callable[..., MultiModalMae]) -> None:
    model = small_mae(image_size=104)
    batch = {
        name: modality.missing(104).expand(2, *modality.missing(104).shape) for name, modality in model.inputs.items()
    }
    present, keys = torch.ones(2, 3, dtype=torch.bool), torch.tensor([1, 2])
    sheet = prediction_grid(model, {**batch, "present": present, "mask_keys": keys})
    assert sheet.shape == (HEADING + 2 * (104 + GAP), 13 * (104 + GAP) - GAP, 3)
