"""Counter-based random numbers: a draw is a hash of what it is for, whatever was drawn before it and wherever."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_INCREMENT: Final = np.uint64(0x9E3779B97F4A7C15)


def hash_of(key: NDArray[np.uint64], counter: ArrayLike) -> NDArray[np.uint64]:
    """The random 64 bits that SplitMix64, seeded with ``key``, draws at step ``counter``; the two broadcast.

    The result is again a key, so that ``hash_of(hash_of(key, i), j)`` is a draw for the pair (i, j).

    References:
        Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    steps = np.array(counter, dtype=np.uint64, ndmin=1)  # numpy warns of overflow in scalars, which is meant here
    bits: NDArray[np.uint64] = key + _INCREMENT * (steps + np.uint64(1))
    scratch = bits >> np.uint64(30)
    bits ^= scratch
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(bits, np.uint64(27), out=scratch)
    bits ^= scratch
    bits *= np.uint64(0x94D049BB133111EB)
    np.right_shift(bits, np.uint64(31), out=scratch)
    bits ^= scratch
    return bits


def uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Maps random 64 bits to [0, 1), in steps of 2⁻⁵³."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
