"""Reproducible random numbers per sample, also for libraries that draw from the global generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from taskrobust._random import random_bits, uniform
from taskrobust.training.data import Key


class Stream:
    """Random numbers for one purpose, which depend on the seed, the sample and the epoch only.

    Args:
        seed: The user's seed.
        purpose: Identifies the purpose, so that the same seed gives different numbers elsewhere.
    """

    def __init__(self, seed: int, purpose: int) -> None:
        self._key = random_bits(np.array([seed], dtype=np.uint64), purpose)

    def uniform(self, key: Key, number: int) -> NDArray[np.float64]:
        """``number`` draws from [0, 1) for a sample."""
        return uniform(random_bits(self._of(key), np.arange(number)))

    def seed(self, key: Key) -> int:
        """A seed of 32 bits for a sample, for a library's generator."""
        return int(self._of(key)[0] >> np.uint64(32))

    def _of(self, key: Key) -> NDArray[np.uint64]:
        index, epoch = key
        return random_bits(random_bits(self._key, index), epoch)


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python and numpy, and restore their state at the end.

    Args:
        seed: The seed, of 32 bits.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
