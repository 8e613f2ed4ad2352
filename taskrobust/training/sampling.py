from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

Key = tuple[int, int]
"""Index of a sample and the epoch in which it is drawn: all that its augmentation or mask may depend on."""


class GlobalBatchSampler(Sampler[list[Key]]):
    """Draws one rank's batches from an endless stream of shuffled epochs, from any position on.

    All ranks cut the same stream: a step takes the next ``ranks * batch_size`` samples, whoever computes them. So two
    ranks see what one rank with twice the batch would see, a run goes on where it was without reading what came before,
    also on another number of ranks, and no sample is dropped at the end of an epoch.

    Args:
        num_samples: Samples in an epoch.
        batch_size: Samples in a batch of one rank.
        seed: Seed of the permutations, one for each epoch.
        rank: This rank.
        ranks: Number of ranks.
        start: Position in the stream, in samples over all ranks.

    Raises:
        ValueError: If there are no samples.
    """

    def __init__(
        self, num_samples: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1, start: int = 0
    ) -> None:
        if num_samples < 1:
            raise ValueError("Expected at least one sample to train on, got an empty data set.")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.start = start

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
        return torch.randperm(self.num_samples, generator=generator)
