from collections.abc import Mapping
from typing import Final

import numpy as np
from torch import Tensor

from taskrobust.vision.downstream.model import DownstreamModel
from taskrobust.vision.figures import Picture

_GAP: Final = 4
_WHITE: Final = 255


def prediction_columns(model: DownstreamModel, batch: Mapping[str, Tensor]) -> dict[str, Picture]:
    """Pictures of the first input, what a model predicts and what is true, RGB bytes [B, H, W, 3] by name.

    What is predicted and what is true are left out where they are no maps. The titles are those of a column each of
    ``taskrobust.vision.qualitative.comparison_figure``.

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
