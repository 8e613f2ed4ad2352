"""Pretext tasks, whose labels z are derived from the images."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from taskrobust._random import random_bits, uniform


class PretextTask(ABC):
    """Derives inputs and pretext labels from unlabeled images.

    Example:
        >>> [task.name for task in (Rotation(), SplitHalf())]
        ['rotation', 'split_half']
    """

    name: ClassVar[str]
    """Name of the task in a ``MultiTaskLoss``."""

    width: int
    """Number d_z of dimensions of the pretext label."""

    @abstractmethod
    def pairs(self, images: Tensor, index: NDArray[np.int64], epoch: int) -> tuple[Tensor, Tensor]:
        """Compute inputs, in the shape of the images, and pretext labels, float [n, d_z].

        Args:
            images: Shape [n, 3, size, size], in [0, 1].
            index: Indices of the images in the data set, shape [n]. Random choices depend on the index and the epoch.
            epoch: Current epoch.
        """

    def losses(self, predictions: Tensor, pretext: Tensor) -> Tensor:
        """Compute the loss of each sample, shape [n]. Defaults to the squared error averaged over the dimensions.

        Args:
            predictions: Shape [n, d_z].
            pretext: z, shape [n, d_z].
        """
        return functional.mse_loss(predictions, pretext, reduction="none").mean(1)


class Rotation(PretextTask):
    """Predicts by which multiple of 90 degrees an image was rotated, one-hot encoded.

    Example:
        >>> inputs, targets = Rotation().pairs(torch.rand(2, 3, 32, 32), np.arange(2), epoch=0)
        >>> inputs.shape
        torch.Size([2, 3, 32, 32])

    Args:
        seed: Seed of the rotations.

    References:
        Gidaris, Singh, Komodakis, Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018.
    """

    name = "rotation"
    width = 4

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def pairs(self, images: Tensor, index: NDArray[np.int64], epoch: int) -> tuple[Tensor, Tensor]:
        """Compute rotated images and their rotations."""
        seed = np.array([self.seed], dtype=np.uint64)
        turns = torch.from_numpy((uniform(random_bits(random_bits(seed, index), epoch)) * 4).astype(np.int64))
        turned = torch.empty_like(images)
        for turn in range(4):
            turned[turns == turn] = images[turns == turn].rot90(turn, dims=(2, 3))
        return turned, functional.one_hot(turns, 4).to(images)

    def losses(self, predictions: Tensor, pretext: Tensor) -> Tensor:
        """Compute the cross-entropy of each sample."""
        return functional.cross_entropy(predictions, pretext, reduction="none")


class Colorization(PretextTask):
    """Predicts the colors of an image from its gray values: two opponent channels on a coarse grid.

    Example:
        >>> inputs, targets = Colorization().pairs(torch.rand(2, 3, 32, 32), np.arange(2), epoch=0)
        >>> inputs.shape
        torch.Size([2, 3, 32, 32])

    Args:
        grid: Rows and columns of the grid.

    References:
        Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016, which predicts distributions of colors instead.
    """

    name = "colorization"

    def __init__(self, grid: int = 4) -> None:
        self.grid = grid
        self.width = 2 * grid**2

    def pairs(self, images: Tensor, index: NDArray[np.int64], epoch: int) -> tuple[Tensor, Tensor]:
        """Compute gray images, and red minus green and blue minus yellow."""
        red, green, blue = images.unbind(1)
        chroma = torch.stack([red - green, blue - (red + green) / 2], dim=1)
        gray = images.mean(1, keepdim=True).expand_as(images)
        return gray, functional.adaptive_avg_pool2d(chroma, self.grid).flatten(1)


class SplitHalf(PretextTask):
    """Predicts the right half of an image on a coarse grid from the left half; the rest of the input is black.

    Example:
        >>> inputs, targets = SplitHalf().pairs(torch.rand(2, 3, 32, 32), np.arange(2), epoch=0)
        >>> inputs.shape
        torch.Size([2, 3, 32, 32])

    Args:
        grid: Rows of the grid, which has half as many columns.
    """

    name = "split_half"

    def __init__(self, grid: int = 4) -> None:
        self.grid = grid
        self.width = 3 * grid * (grid // 2)

    def pairs(self, images: Tensor, index: NDArray[np.int64], epoch: int) -> tuple[Tensor, Tensor]:
        """Compute images without their right halves, and these halves on the grid."""
        middle = images.shape[3] // 2
        shown = images.clone()
        shown[..., middle:] = 0
        hidden = functional.adaptive_avg_pool2d(images[..., middle:], (self.grid, self.grid // 2))
        return shown, hidden.flatten(1)
