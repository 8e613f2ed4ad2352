import math
from collections.abc import Sequence
from typing import Self

from torch import Tensor

from taskrobust.weighting.base import Weighting


class Fixed(Weighting):
    r"""Weights the tasks by constants.

    .. math:: w_t = c_t

    Example:
        >>> import torch
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], Fixed([3.0, 1.0]))
        >>> criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        tensor(1.7500)

    Args:
        values: Nonnegative constants :math:`c_t`, one per task.

    Raises:
        ValueError: If a value is negative or not finite, or if no value is positive.
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        if not all(0 <= value < math.inf for value in values) or not any(values):
            raise ValueError(f"Expected finite weights, none negative and one positive, got {list(values)}.")
        self.values = tuple(values)

    def setup(self, tasks: Sequence[str]) -> Self:
        """Check that there is one value per task."""
        super().setup(tasks)
        self._values = self.per_task("values")
        return self

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Return the constants."""
        return self._values.on(risks.device)
