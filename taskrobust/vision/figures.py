"""Images of predictions: a row for each sample, a column for each task, map or model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from taskrobust._io.atomic import replacing
from taskrobust.vision.downstream.model import DownstreamModel
from taskrobust.vision.mae.model import MultiModalMae, Predictions
from taskrobust.vision.modalities import Modality, Prepared

Picture = NDArray[np.uint8]
"""RGB bytes, [H, W, 3], or [B, H, W, 3] for a batch."""

_INCHES: Final = 2.0
_DPI: Final = 150
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


def prediction_columns(model: DownstreamModel, batch: Mapping[str, Tensor]) -> dict[str, Picture]:
    """Pictures of the first input, what a model predicts and what is true, RGB bytes [B, H, W, 3] by name.

    Prediction and truth are left out if they are not maps. The names are the columns' titles in ``comparison_figure``.

    Args:
        model: The model, in evaluation mode.
        batch: Its arguments, B samples.
    """
    name, modality = next(iter(model.inputs.items()))
    prepared = modality.prepare(batch[name], batch["present"][:, 0], model.patch_size)
    shown = modality.picture(prepared.values, prepared)
    return {"input": shown} | model.task.pictures(model.predict(**batch), model.truth(batch))


def prediction_sheet(model: DownstreamModel, batch: Mapping[str, Tensor]) -> Picture:
    """The same side by side, a row for each sample, RGB bytes [H, W, 3]."""
    margin = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    columns = [np.pad(c, margin, constant_values=_WHITE) for c in prediction_columns(model, batch).values()]
    sheet: Picture = np.concatenate([np.concatenate(list(row), axis=1) for row in zip(*columns, strict=True)])
    return sheet


def comparison_figure(columns: Mapping[str, NDArray[np.uint8]], path: Path) -> None:
    """Draws pictures in titled columns, such as the input, what each of several models predicts, and the truth.

    Args:
        columns: For each title the pictures of the same N images, RGB bytes [N, H, W, 3]; columns may differ in H, W.
        path: The PNG file.

    Raises:
        ValueError: If there is nothing to draw, columns are of different numbers of images, or are no RGB bytes.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Figure 3.
    """
    for title, pictures in columns.items():
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(
                f"Expected RGB bytes [N, H, W, 3] in the column {title!r}, got {pictures.dtype} {pictures.shape}."
            )
    rows = {title: len(pictures) for title, pictures in columns.items()}
    if not columns or len(set(rows.values())) > 1 or 0 in rows.values():
        raise ValueError(f"Expected columns of the same images, at least one, got these numbers of them: {rows}.")
    images = next(iter(rows.values()))
    tallest = max(pictures.shape[1] / pictures.shape[2] for pictures in columns.values())
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(_INCHES * len(columns), _INCHES * tallest * images + 0.3), layout=layout)
    axes = figure.subplots(images, len(columns), squeeze=False)
    for column, (title, pictures) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(title, fontsize=9, wrap=True)
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


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
    """The range of the prediction, for a map that the sample lacks."""
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
