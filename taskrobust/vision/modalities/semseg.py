"""Semantic maps: a class for each pixel."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F

from taskrobust.vision.modalities.base import Modality, Prepared, from_patches, to_bytes, to_patches

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

VOID: Final = 255
"""The label of unknown pixels in a batch."""


@dataclass(frozen=True)
class SemSeg(Modality):
    """Classes of pixels on a coarse grid, embedded by a vector for each class and predicted with the cross-entropy.

    A void pixel is embedded as the zero vector and predicted at no loss.

    Args:
        num_classes: Number of classes, up to 255.
        class_width: Length of the vector of a class.
        void: Label of unknown pixels in the files.
        reduce_zero_label: Whether label 0 of the files is void and label k is class k - 1.
        stride: Pixels between the centers of the grid, in both directions. A patch must be a multiple of it.
    """

    num_classes: int = 133
    class_width: int = 64
    void: int = VOID
    reduce_zero_label: bool = False
    stride: int = 4
    suffixes: ClassVar[tuple[str, ...]] = (".png",)

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= VOID:
            raise ValueError(f"Expected num_classes from 1 to {VOID}, as labels are bytes, got {self.num_classes}.")
        if not 0 <= self.void <= 255:
            raise ValueError(f"Expected a void label from 0 to 255, got {self.void}.")
        if self.stride < 1:
            raise ValueError(f"Expected a stride of at least 1 pixel, got {self.stride}.")
        if self.reduce_zero_label and self.num_classes == self.void:
            raise ValueError(
                f"Expected a void label that is no class, got {self.void}, the last of {self.num_classes} classes "
                "after 0. Set void=0 if there is no other."
            )

    def decode(self, image: Image) -> "TVTensor":
        """Classes, bytes [1, H, W], ``VOID`` where unknown, from a file of 8 bits, with a palette or without."""
        from torchvision import tv_tensors

        if image.mode not in ("L", "P"):
            raise ValueError(f"Expected labels of 8 bits, got an image of mode {image.mode!r}.")
        classes, known = self._classes_of_labels()
        unknown = [label for label, pixels in enumerate(image.histogram()) if pixels and not known[label]]
        if unknown:
            raise ValueError(
                f"Expected labels of {self.num_classes} classes{' after 0' if self.reduce_zero_label else ''} or void "
                f"({self.void}), got the label {unknown[-1]}. Set num_classes or void."
            )
        return tv_tensors.Mask(torch.from_numpy(classes[np.asarray(image)])[None])

    def _classes_of_labels(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """For each of the 256 labels its class, and whether it may occur."""
        first = int(self.reduce_zero_label)
        classes = np.full(256, VOID, dtype=np.uint8)
        classes[first : first + self.num_classes] = np.arange(self.num_classes)
        classes[self.void] = VOID
        known = classes != VOID
        known[[self.void, 0] if self.reduce_zero_label else self.void] = True
        return classes, known

    def pack(self, crop: "TVTensor") -> Tensor:
        """Classes at the centers of the grid, bytes [S / stride, S / stride]."""
        center = self.stride // 2
        classes: Tensor = crop.as_subclass(Tensor)
        return classes[0, center :: self.stride, center :: self.stride].contiguous()

    def missing(self, size: int) -> Tensor:
        """Void everywhere."""
        return torch.full((size // self.stride, size // self.stride), VOID, dtype=torch.uint8)

    def prepare(self, packed: Tensor, present: Tensor, patch_size: int) -> Prepared:
        """Classes as indices, ``VOID`` where unknown."""
        patches, grid = to_patches(packed[:, None], self._places(patch_size))
        return Prepared(patches.long(), (patches != VOID) & present[:, None, None], grid)

    def embedding(self, width: int, patch_size: int) -> nn.Module:
        """A vector for each class, then a linear map of all the vectors of a patch."""
        return ClassEmbedding(self.num_classes, self.class_width, self._places(patch_size) ** 2, width)

    def outputs(self, patch_size: int) -> int:
        """A score for each class and place."""
        return self.num_classes * self._places(patch_size) ** 2

    def _places(self, patch_size: int) -> int:
        if patch_size % self.stride:
            raise ValueError(f"Expected a patch size that is a multiple of the stride {self.stride}, got {patch_size}.")
        return patch_size // self.stride

    def patch_losses(self, prediction: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Cross-entropies of the known places."""
        scores = self._scores(prediction).flatten(0, 1)
        labels = prepared.values.masked_fill(~prepared.valid, VOID).flatten(0, 1)
        # With the type given, CUDA casts within the softmax: no float32 copy of the scores is kept.
        likelihoods = F.log_softmax(scores, dim=1, dtype=torch.float32)
        errors = F.nll_loss(likelihoods, labels, ignore_index=VOID, reduction="none")
        return errors.view(prepared.values.shape).sum(-1), prepared.valid.sum(-1).float()

    def predicted_values(self, prediction: Tensor, prepared: Prepared) -> Tensor:
        """The most likely class of each place."""
        return self._scores(prediction).argmax(-2)

    def _scores(self, prediction: Tensor) -> Tensor:
        return prediction.reshape(*prediction.shape[:-1], self.num_classes, -1)

    def picture(self, values: Tensor, prepared: Prepared) -> NDArray[np.uint8]:
        """A color for each class; void is black."""
        maps = from_patches(values, prepared.grid, channels=1)[:, 0].cpu()
        colors = torch.from_numpy(_palette())[maps].permute(0, 3, 1, 2)
        return to_bytes(colors.repeat_interleave(self.stride, -2).repeat_interleave(self.stride, -1))


class ClassEmbedding(nn.Module):
    """Maps the classes of the places of a patch to its token.

    Args:
        num_classes: Number of classes.
        class_width: Length of the vector of a class.
        places: Places in a patch.
        width: Length of a token.
    """

    def __init__(self, num_classes: int, class_width: int, places: int, width: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(num_classes, class_width)
        self.projection = nn.Linear(places * class_width, width)
        nn.init.trunc_normal_(self.classes.weight, std=0.02)

    def forward(self, labels: Tensor) -> Tensor:
        """Tokens [..., width] of the classes [..., places]."""
        vectors = F.pad(self.classes.weight, (0, 0, 0, 1))  # the last one, of zeros, is that of void
        rows = labels.clamp(max=self.classes.num_embeddings)
        tokens: Tensor = self.projection(F.embedding(rows, vectors).flatten(-2))
        return tokens


def _palette() -> NDArray[np.float64]:
    """Colors of the 256 labels between 0 and 1, [256, 3], neighbors far apart."""
    label = np.arange(256)
    hue = label * 0.618034 % 1  # the golden ratio: however many are taken, they lie evenly
    colors = hsv_to_rgb(np.stack([hue, 0.5 + 0.25 * (label % 3), 1 - 0.2 * (label // 3 % 3)], axis=1))
    colors[VOID] = 0
    return colors
