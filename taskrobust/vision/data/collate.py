"""Makes batches of samples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from taskrobust._random import random_bits
from taskrobust.training.data import Key
from taskrobust.vision.data.base import Sample
from taskrobust.vision.modalities import Modality, Rgb

_NO_LABEL: Final = torch.tensor(-1)


class MapsCollate:
    """Stacks the maps of samples, for ``MaeCollate`` and ``TargetCollate``.

    Args:
        modalities: The modalities by name. Those that only predict are not in a batch.
        size: Side of the crops in pixels.
    """

    def __init__(self, modalities: Mapping[str, Modality], size: int) -> None:
        self.missing = {
            name: modality.missing(size) for name, modality in modalities.items() if modality.source is None
        }

    def __call__(self, samples: Sequence[tuple[Key, Sample]]) -> dict[str, Tensor]:
        """Stack.

        Args:
            samples: B keys (index, epoch) and samples.

        Returns:
            A tensor [B, ...] for each modality;
            present: the modalities that a sample has, in their order, bool [B, M].
        """
        batch = {
            name: torch.stack([sample.get(name, missing) for _, sample in samples])
            for name, missing in self.missing.items()
        }
        present = torch.tensor([[name in sample for name in self.missing] for _, sample in samples])
        return {**batch, "present": present}


class MaeCollate(MapsCollate):
    """Stacks samples into the keyword arguments of ``MultiModalMae``.

    Args:
        modalities: The modalities by name. Those that only predict are not in a batch.
        size: Side of the crops in pixels.
        mask_seed: Seed of the masks: the mask of a sample depends on it, the index and the epoch only.
    """

    def __init__(self, modalities: Mapping[str, Modality], size: int, mask_seed: int = 0) -> None:
        super().__init__(modalities, size)
        self.mask_seed = np.array([mask_seed], dtype=np.uint64)

    def __call__(self, samples: Sequence[tuple[Key, Sample]]) -> dict[str, Tensor]:
        """Stack.

        Args:
            samples: B keys (index, epoch) and samples.

        Returns:
            A tensor [B, ...] for each modality;
            present: the modalities that a sample has, in their order, bool [B, M];
            mask_keys: 64 random bits for each sample, int64 [B].
        """
        index, epoch = np.array([key for key, _ in samples], dtype=np.int64).T
        mask_keys = random_bits(random_bits(self.mask_seed, index), epoch)
        return {**super().__call__(samples), "mask_keys": torch.from_numpy(mask_keys.view(np.int64))}


class TargetCollate(MapsCollate):
    """Stacks samples into the keyword arguments of a downstream model: inputs, target maps and classes.

    Args:
        modalities: The modalities by name. Those that only predict are not in a batch.
        size: Side of the crops in pixels.
        mixing: Mixes the color images of a batch and their classes, such as ``taskrobust.vision.transforms.Mixing``.

    Raises:
        ValueError: If there are maps other than one color image, as those cannot be mixed.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        size: int,
        mixing: Callable[[Tensor, Tensor, Key], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__(modalities, size)
        self.mixing = mixing
        mixable = [name for name in self.missing if isinstance(modalities[name], Rgb)]
        if mixing is not None and (len(mixable) != 1 or len(self.missing) != 1):
            raise ValueError(f"Expected a color image alone to mix, got {list(self.missing)}. Disable mixing.")

    def __call__(self, samples: Sequence[tuple[Key, Sample]]) -> dict[str, Tensor]:
        """Stack.

        Args:
            samples: B keys (index, epoch) and samples.

        Returns:
            A tensor [B, ...] for each modality;
            present: the modalities that a sample has, in their order, bool [B, M];
            label: classes, -1 for a sample without one, int64 [B];
            soft_labels: if images are mixed, the share of each class, float32 [B, C]. If one image of a pair cannot be
            read, neither is present.
        """
        label = torch.stack([sample.get("label", _NO_LABEL) for _, sample in samples])
        batch = {**super().__call__(samples), "label": label}
        if self.mixing is None:
            return batch
        (name,) = self.missing
        mixed, soft_labels = self.mixing(batch[name], label, samples[0][0])
        present = batch["present"]
        return {**batch, name: mixed, "present": present & present.flip(0), "soft_labels": soft_labels}
