"""Pictures of what a model predicts: a row for each image, columns for each task."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from taskrobust.vision.mae.model import MultiModalMae, Predictions
from taskrobust.vision.modalities import Modality, Prepared

Picture = NDArray[np.uint8]
"""RGB bytes, [H, W, 3], or [B, H, W, 3] for a batch."""

_GREY: Final = 128
_WHITE: Final = 255
_GAP: Final = 4
_HEADING: Final = 16
_SMALLEST: Final = 100
"""Side in pixels below which a picture is enlarged, so that it can be looked at and headings fit."""


def prediction_grid(model: MultiModalMae, batch: Mapping[str, Tensor]) -> Picture:
    """Input, masked input, prediction and target of each task, side by side, with headings.

    The prediction stands where the encoder saw nothing, the input where it saw something. Input and target are one
    column where they are the same.

    Args:
        model: The model.
        batch: Its arguments, B samples.
    """
    predictions = model.predict(**batch)
    headings: list[str] = []
    columns: list[Picture] = []
    for task, modality in model.modalities.items():
        pictures = _task_pictures(model, predictions, task, modality)
        headings += pictures.keys()
        columns += pictures.values()
    return _with_headings(headings, columns)


def predicted_pictures(model: MultiModalMae, batch: Mapping[str, Tensor]) -> dict[str, Picture]:
    """The predicted map of each task, [B, H, W, 3], also where the encoder saw the input."""
    predictions = model.predict(**batch)
    return {
        task: _predicted(modality, predictions, task, predictions.prepared[modality.source or task])
        for task, modality in model.modalities.items()
    }


def _task_pictures(model: MultiModalMae, predictions: Predictions, task: str, modality: Modality) -> dict[str, Picture]:
    source = modality.source or task
    prepared = predictions.prepared[source]
    known = prepared.valid.flatten(1).any(1).cpu().numpy()
    masked = _pixels(predictions.masked[:, list(model.inputs).index(source)], prepared.grid, model.patch_size)
    true = model.inputs[source].picture(prepared.values, prepared)
    true = np.where(known[:, None, None, None], true, np.uint8(_WHITE))
    predicted = np.where(masked, _predicted(modality, predictions, task, prepared), true)
    shown = np.where(masked, np.uint8(_GREY), true)
    if modality.source is None:
        return {f"{task}: masked": shown, "prediction": predicted, "input = target": true}
    target = modality.picture(prepared.values, prepared)
    return {f"{task}: input": true, "masked": shown, "prediction": predicted, "target": target}


def _predicted(modality: Modality, predictions: Predictions, task: str, prepared: Prepared) -> Picture:
    """A map that the sample lacks has no range of its own: the prediction's serves."""
    values = modality.predicted_values(predictions.predictions[task].float(), prepared)
    known = prepared.valid.flatten(1).any(1)[:, None, None]
    scale = Prepared(
        prepared.values.where(known, values.to(prepared.values.dtype)), prepared.valid | ~known, prepared.grid
    )
    return modality.picture(values, scale)


def _pixels(masked: Tensor, grid: tuple[int, int], patch_size: int) -> NDArray[np.bool_]:
    """Which pixels are masked, [B, H, W, 1]."""
    patches = masked.view(-1, *grid).cpu().numpy()
    pixels: NDArray[np.bool_] = patches.repeat(patch_size, 1).repeat(patch_size, 2)[..., None]
    return pixels


def _with_headings(headings: Sequence[str], columns: Sequence[Picture]) -> Picture:
    times = -(-_SMALLEST // columns[0].shape[2])
    columns = [column.repeat(times, 1).repeat(times, 2) for column in columns]
    rows, height, width, _ = columns[0].shape
    sheet = np.full(
        (_HEADING + rows * (height + _GAP), len(columns) * (width + _GAP) - _GAP, 3), _WHITE, dtype=np.uint8
    )
    for number, column in enumerate(columns):
        left = number * (width + _GAP)
        for row, picture in enumerate(column):
            top = _HEADING + row * (height + _GAP)
            sheet[top : top + height, left : left + width] = picture
    image = Image.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(10)
    for number, heading in enumerate(headings):
        draw.text((number * (width + _GAP) + 2, 2), heading, fill=(0, 0, 0), font=font)
    return np.asarray(image)
