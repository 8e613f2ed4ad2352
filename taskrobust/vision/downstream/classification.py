from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from taskrobust.vision.data import Images
from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.heads import Head, LinearHead
from taskrobust.vision.downstream.metrics import TopK
from taskrobust.vision.modalities import Modality


@dataclass(frozen=True)
class Classification(DownstreamTask):
    """Tells what an image is of. Trained with the cross-entropy, scored by ``top1`` and ``top5``.

    Args:
        num_classes: Number of classes.
        label_smoothing: Share of each label that is spread evenly over all classes in training.

    References:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016, section 7 (smoothing).
    """

    num_classes: int
    label_smoothing: float = 0.1
    name: ClassVar[str] = "classification"
    headline: ClassVar[str] = "top1"
    unknown: ClassVar[int] = -1

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"Expected num_classes of at least 2, got {self.num_classes}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Expected a label_smoothing in [0, 1), got {self.label_smoothing}.")

    def targets(self) -> dict[str, Modality]:
        """None: a class is no map."""
        return {}

    def check(self, splits: Mapping[str, Images]) -> None:
        """Refuse images whose classes are not known, of another number, or not the same in all splits.

        Args:
            splits: Images by the name of their split.

        Raises:
            ValueError: If they are such.
        """
        classes_of = {split: getattr(images, "classes", []) for split, images in splits.items()}
        first, expected = next(iter(classes_of.items()))
        for split, classes in classes_of.items():
            if len(classes) != self.num_classes:
                raise ValueError(
                    f"Expected images of {self.num_classes} classes, got {type(splits[split]).__name__} with "
                    f"{len(classes)}"
                    f"{': ' + ', '.join(classes[:5]) + (', ...' if len(classes) > 5 else '') if classes else ''}. Set "
                    "num_classes, or take images in folders named after their classes."
                )
            for index, (wanted, name) in enumerate(zip(expected, classes, strict=True)):
                if name != wanted:
                    raise ValueError(
                        f"Expected the same classes in all splits, got {wanted!r} in {first} and {name!r} in {split} "
                        f"as class {index}. Give all splits the same class folders."
                    )

    def head(self, width: int, depth: int, patch_size: int) -> Head:
        """The mean of all tokens, normalized and mapped linearly."""
        return LinearHead(width, depth, self.num_classes)

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Classes, int64 [B]."""
        return batch["label"]

    def losses(self, predictions: Tensor, truth: Tensor, batch: Mapping[str, Tensor], training: bool) -> Tensor:
        """Cross-entropies, [B], of the soft labels where images are mixed, which are smooth already."""
        if "soft_labels" in batch:
            return F.cross_entropy(predictions, batch["soft_labels"], reduction="none")
        smoothing = self.label_smoothing if training else 0.0
        return F.cross_entropy(
            predictions, truth, reduction="none", ignore_index=self.unknown, label_smoothing=smoothing
        )

    def scores(self, device: torch.device) -> TopK:
        """top1 and, with more than five classes, top5."""
        return TopK(self.num_classes, self.unknown, device)


@dataclass(frozen=True)
class LinearProbe(Classification):
    """Tells what an image is of from what the encoder knows already: it is frozen, and a linear map is trained.

    The mean of all tokens is normalized by LayerNorm. MAE's probe has a batch normalization there, with which a
    result would depend on how a batch is divided over processes.

    Args:
        num_classes: Number of classes.
        label_smoothing: Share of each label that is spread evenly over all classes in training.
    """

    label_smoothing: float = 0.0
    name: ClassVar[str] = "linear-probe"
    trains_encoder: ClassVar[bool] = False
