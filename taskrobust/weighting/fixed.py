from collections.abc import Sequence

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting


class Fixed(Weighting):
    r"""Weighs the tasks by given constants.

    .. math:: w_t = c_t

    Args:
        num_tasks: Number of tasks T.
        values: The constants :math:`c_t`, T numbers that are not negative.

    Raises:
        ValueError: If ``values`` are not T numbers of which none is negative and one is positive.
    """

    values: Tensor

    def __init__(self, num_tasks: int, values: Sequence[float]) -> None:
        super().__init__(num_tasks)
        if len(values) != num_tasks or min(values) < 0 or max(values) == 0:
            raise ValueError(f"Expected {num_tasks} weights, none negative and one positive, got {list(values)}.")
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32))

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """The constants."""
        return self.values
