"""The order of the samples, and how they are loaded."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

Key = tuple[int, int]
"""Index of a sample and the epoch in which it is drawn: its augmentation and mask depend on nothing else."""

_POOL = 64
"""Steps whose samples are sorted by length together: enough to avoid most padding, few enough to mix well."""


class GlobalBatchSampler(Sampler[list[Key]]):
    """Draws one rank's batches from an endless stream of shuffled epochs, from any position on.

    All ranks share one stream: a step consumes its next ``ranks * batch_size`` samples. Two ranks therefore see the
    same samples as one rank with twice the batch size, a run resumes at any position without reading earlier samples,
    on any number of ranks, and no sample is dropped at the end of an epoch.

    Args:
        num_samples: Samples in an epoch.
        batch_size: Samples in a batch of one rank.
        seed: Seed of the permutations, one for each epoch.
        rank: This rank.
        ranks: Number of ranks.
        start: Position in the stream, in samples over all ranks.
        lengths: Length of each sample. If given, the samples of a step have similar lengths, and steps are shuffled.
        step_size: Samples per step over all ranks, used with ``lengths``.

    Raises:
        ValueError: If there are no samples.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        start: int = 0,
        lengths: NDArray[np.int64] | None = None,
        step_size: int = 1,
    ) -> None:
        if num_samples < 1:
            raise ValueError("Expected at least one sample to train on, got an empty data set.")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.start = start
        self.lengths = lengths
        self.step_size = step_size

    def __iter__(self) -> Iterator[list[Key]]:
        """This rank's batches, without end."""
        epoch, permutation = -1, torch.empty(0, dtype=torch.int64)
        position = self.start + self.rank * self.batch_size
        while True:
            keys = []
            for sample in range(position, position + self.batch_size):
                if sample // self.num_samples != epoch:
                    epoch = sample // self.num_samples
                    permutation = self._permutation(epoch)
                keys.append((int(permutation[sample % self.num_samples]), epoch))
            yield keys
            position += self.ranks * self.batch_size

    def _permutation(self, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        permutation = torch.randperm(self.num_samples, generator=generator)
        return permutation if self.lengths is None else self._by_length(permutation, epoch, self.lengths, generator)

    def _by_length(
        self, permutation: torch.Tensor, epoch: int, lengths: NDArray[np.int64], generator: torch.Generator
    ) -> torch.Tensor:
        """The same samples, in steps of similar length, except those that complete the previous epoch's last step."""
        order = permutation.numpy()
        begun = -epoch * self.num_samples % self.step_size
        pools = np.split(order[begun:], range(_POOL * self.step_size, len(order) - begun, _POOL * self.step_size))
        by_length = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
        whole = len(by_length) // self.step_size * self.step_size
        steps = by_length[:whole].reshape(-1, self.step_size)
        shuffled = steps[torch.randperm(len(steps), generator=generator).numpy()]
        return torch.from_numpy(np.concatenate([order[:begun], shuffled.ravel(), by_length[whole:]]))


class Samples(Protocol):
    """Samples that are read in batches, by their (index, epoch) keys."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitems__(self, keys: list[Key]) -> Any:
        """The samples with the given keys, for ``collate``."""


class ErrorsAsSamples:
    """Samples that return errors instead of raising them.

    An error raised in a worker would arrive with the worker's traceback in its message. A returned error arrives
    unchanged, and the training process raises it.

    Args:
        samples: The samples.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, keys: list[Key]) -> Any:
        """The samples with the given keys, or the error."""
        try:
            return self.samples.__getitems__(keys)
        except Exception as error:
            return error


class ErrorsAsBatches:
    """Makes batches, and passes errors of ``ErrorsAsSamples`` on.

    Args:
        collate: Makes a batch.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        """A batch, or the error."""
        if isinstance(samples, Exception):
            return samples
        try:
            return self.collate(samples)
        except Exception as error:
            return error
