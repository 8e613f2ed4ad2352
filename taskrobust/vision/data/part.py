"""Parts of a data set, such as nine tenths to train and one tenth to select a model."""

import numpy as np
from numpy.typing import NDArray


def in_part(places: NDArray[np.float64], part: tuple[float, float]) -> NDArray[np.int64]:
    """The samples that lie in a part, ascending.

    Args:
        places: Where in [0, 1) each sample lies.
        part: From where up to where the samples lie that are taken.

    Raises:
        ValueError: If the part is no range within [0, 1] or holds no sample.
    """
    if not 0 <= part[0] < part[1] <= 1:
        raise ValueError(f"Expected a part from one number in [0, 1] up to a larger one, got {part}.")
    samples = np.flatnonzero((part[0] <= places) & (places < part[1]))
    if not len(samples):
        raise ValueError(f"Expected images in the part {part}, all {len(places)} lie outside. Take a larger one.")
    return samples
