"""Makes batches of samples."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from taskrobust.hashing import hash_of
from taskrobust.training.sampling import Key
from taskrobust.vision.data.samples import Sample
from taskrobust.vision.modalities import Modality


class MaeCollate:
    """Stacks samples to the keyword arguments of ``MultiModalMae``.

    Args:
        modalities: The modalities by name. Those that only predict have nothing in a batch.
        size: Side of the crops in pixels.
        mask_seed: Names the stream of masks: the mask of a sample is a function of it, the index and the epoch.
    """

    def __init__(self, modalities: Mapping[str, Modality], size: int, mask_seed: int = 0) -> None:
        self.missing = {
            name: modality.missing(size) for name, modality in modalities.items() if modality.source is None
        }
        self.mask_seed = np.array([mask_seed], dtype=np.uint64)

    def __call__(self, samples: Sequence[tuple[Key, Sample]]) -> dict[str, Tensor]:
        """Stack.

        Args:
            samples: B keys (index, epoch) and samples.

        Returns:
            A tensor [B, ...] for each modality;
            present: which modalities a sample has, in their order, bool [B, M];
            mask_keys: 64 random bits for each sample, int64 [B].
        """
        batch = {
            name: torch.stack([sample.get(name, missing) for _, sample in samples])
            for name, missing in self.missing.items()
        }
        present = torch.tensor([[name in sample for name in self.missing] for _, sample in samples])
        index, epoch = np.array([key for key, _ in samples], dtype=np.int64).T
        mask_keys = hash_of(hash_of(self.mask_seed, index), epoch)
        return {**batch, "present": present, "mask_keys": torch.from_numpy(mask_keys.view(np.int64))}
