"""Maps as a model would guess them, for pre-training as on images without true maps."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from taskrobust.synthetic.rooms.labels import LABELS
from taskrobust.synthetic.rooms.primitives import Array
from taskrobust.synthetic.rooms.render import Rendering

_ALIKE: Final = (
    *(("desk", "table"), ("counter", "cabinet"), ("fridge", "cabinet"), ("box", "cabinet"), ("books", "box")),
    *(("rug", "floor"), ("mirror", "window"), ("whiteboard", "painting"), ("curtain", "door"), ("bin", "box")),
    *(("column", "wall"), ("bag", "box"), ("sofa", "bed"), ("pillow", "sofa"), ("sink", "counter"), ("ball", "lamp")),
)
"""Labels that a labeler confuses, and with which."""

_CONFUSION: Final = 0.25
"""Probability that it does so in an image."""

_SHAKE: Final = 0.03
"""Shift of the outlines, as a share of the picture's side."""

_CELLS: Final = 8
"""Outlines are shifted alike within an eighth of the side."""

_SCALE: Final = (0.7, 1.4)
_OFFSET: Final = (-0.5, 0.5)
_LIMITS: Final = (1, 65535)


def pseudo_labels(rendering: Rendering, generator: np.random.Generator) -> Rendering:
    """Depth with a random scale and offset and soft edges; labels with noisy outlines and some confusions.

    Depth is known everywhere: a model guesses on windows and mirrors, too.
    """
    return rendering._replace(
        depth=_guess_depth(rendering.depth, generator), semseg=_guess_labels(rendering.semseg, generator)
    )


def _guess_depth(depth: NDArray[np.uint16], generator: np.random.Generator) -> NDArray[np.uint16]:
    known = depth > 0
    meters = np.where(known, depth, depth[known].mean() if known.any() else _LIMITS[0]).astype(np.float32) / 1000
    soft = _blurred(_blurred(meters).T).T
    guessed = generator.uniform(*_SCALE) * soft + generator.uniform(*_OFFSET)
    millimeters: NDArray[np.uint16] = np.clip(np.rint(guessed * 1000), *_LIMITS).astype(np.uint16)
    return millimeters


def _blurred(rows: Array) -> Array:
    """Mean of each value and its neighbors above and below."""
    padded = np.pad(rows, ((1, 1), (0, 0)), mode="edge")
    mean: Array = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return mean


def _guess_labels(labels: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    taken_for = np.arange(len(LABELS), dtype=np.uint8)
    for (name, other), draw in zip(_ALIKE, generator.random(len(_ALIKE)), strict=True):
        if draw < _CONFUSION:
            taken_for[LABELS.index(name)] = LABELS.index(other)
    side = labels.shape[0]
    cell = np.arange(side) * _CELLS // side
    shifts = generator.normal(0, _SHAKE * side, (2, _CELLS, _CELLS))[:, cell][:, :, cell]
    place = np.mgrid[0:side, 0:side] + np.rint(shifts).astype(np.intp)
    row, column = np.clip(place, 0, side - 1)
    guessed: NDArray[np.uint8] = taken_for[labels[row, column]]
    return guessed
