"""Side by side what several models predict: a row for each image, a column for each model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from torch import Tensor

from taskrobust._io.atomic import replacing
from taskrobust.vision.modalities import Depth, Modality, Prepared, SemSeg
from taskrobust.vision.modalities.base import to_patches

_INCHES: Final = 2.0
_DPI: Final = 150


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


def segmentation_pictures(labels: Tensor) -> NDArray[np.uint8]:
    """A color for each class, the same as in the pictures of pre-training; void is black.

    Args:
        labels: Classes, whole numbers [N, H, W].

    Returns:
        RGB bytes [N, H, W, 3].
    """
    return _pictures(SemSeg(stride=1), labels[:, None].long(), labels[:, None])


def depth_pictures(meters: Tensor, truth: Tensor) -> NDArray[np.uint8]:
    """From near (violet) to far (yellow) over the true range of each image, so that columns can be compared.

    Args:
        meters: Depth [N, H, W], predicted or the truth itself, which is black where it is unknown.
        truth: True depth [N, H, W], 0 where unknown.

    Returns:
        RGB bytes [N, H, W, 3].
    """
    return _pictures(Depth(), meters[:, None], truth[:, None])


def _pictures(modality: Modality, maps: Tensor, truth: Tensor) -> NDArray[np.uint8]:
    values, grid = to_patches(maps, patch_size=1)
    scale, _ = to_patches(truth, patch_size=1)
    return modality.picture(values, Prepared(scale, scale > 0, grid))
