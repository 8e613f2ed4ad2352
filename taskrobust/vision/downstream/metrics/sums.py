from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust.outputs import Outputs
from taskrobust.ranks import Ranks


class SumScores(ABC):
    """Scores that are functions of sums over samples, pixels or images.

    Sums stay on the device, in whole numbers or float64, and are added up over the ranks in the end. So scores do not
    depend on how the data were cut into batches, and a rank may have none. (``torchmetrics`` divides in float32.)

    Args:
        sums: Where the sums begin: zeros on the device.
    """

    def __init__(self, sums: Tensor) -> None:
        self.sums = sums

    def update(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> None:
        """Add the predictions for a batch."""
        self.add(*outputs.predictions)

    def compute(self) -> dict[str, float]:
        """The scores by name, over the batches of all ranks. Called by all ranks."""
        total = Ranks().sum(self.sums.clone())
        return {name: value.item() for name, value in self.scores(total.cpu().double()).items()}

    @abstractmethod
    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Take in predictions and what they should be, as the model and its task have them."""

    @abstractmethod
    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """The scores by name, shape [] each, that follow from the sums of all data; float64."""


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their ratio, 0 where the denominator is."""
    return torch.where(denominator > 0, numerator / denominator, 0)
