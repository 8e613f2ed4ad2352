"""The interface of downstream tasks: targets, head, loss, scores and pictures."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust.training.evaluation import Scores
from taskrobust.vision.data import Images
from taskrobust.vision.downstream.heads import Head
from taskrobust.vision.modalities import Modality


class Predicted(NamedTuple):
    """Predictions for a batch, and the truth.

    Attributes:
        values: Scores of classes [B, C] or [B, C, H, W], or meters [B, H, W].
        truth: Classes [B] or [B, H, W], or meters [B, H, W]; the task's ``unknown`` where it is not known.
    """

    values: Tensor
    truth: Tensor


class DownstreamTask(ABC):
    """A task to fine-tune an encoder for.

    A subclass is a frozen dataclass: its fields are what a configuration may set, plain values only, and are kept with
    a saved model.

    Attributes:
        name: Name of the task in tables.
        headline: The score by which the best model is chosen, and that tables show; larger is better.
        unknown: The value of the truth where it is unknown. Predictions there have no loss and are not scored.
        trains_encoder: Whether the encoder is trained with the head.
    """

    name: ClassVar[str]
    headline: ClassVar[str]
    unknown: ClassVar[int]
    trains_encoder: ClassVar[bool] = True

    @abstractmethod
    def targets(self) -> dict[str, Modality]:
        """The maps that hold the truth, by name, in addition to the encoder's inputs."""

    def check(self, splits: Mapping[str, Images]) -> None:  # noqa: B027  # most take any
        """Refuse images that this task cannot be learned from.

        Args:
            splits: Images by the name of their split: train, held_out and test.

        Raises:
            ValueError: If they are such.
        """

    @abstractmethod
    def head(self, width: int, depth: int, patch_size: int) -> Head:
        """A head with random parameters.

        Args:
            width: Length D of a token.
            depth: Blocks of the encoder.
            patch_size: Side of a patch in pixels.
        """

    @abstractmethod
    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The truth for a batch, ``unknown`` where it is not known, [B] or [B, H, W]."""

    @abstractmethod
    def losses(self, predictions: Tensor, truth: Tensor, batch: Mapping[str, Tensor], training: bool) -> Tensor:
        """Losses of the elements of ``truth``, float32 of its shape. They do not matter where it is unknown.

        Args:
            predictions: Outputs of the head.
            truth: The truth.
            batch: All of the batch.
            training: Whether what only helps to learn, such as label smoothing, is in force.
        """

    @abstractmethod
    def scores(self, device: torch.device) -> Scores:
        """The scores of one evaluation."""

    def pictures(self, predictions: Tensor, truth: Tensor) -> dict[str, NDArray[np.uint8]]:
        """Predictions and truth as RGB bytes [B, H, W, 3] by name. Empty if they are not maps."""
        return {}
