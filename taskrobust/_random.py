"""Counter-based random numbers: a draw is a hash of its key and counter, whatever was drawn before, on any device."""

from typing import Final, TypeVar, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_INCREMENT: Final = 0x9E3779B97F4A7C15 - (1 << 64)  # as signed 64-bit integers, the only ones that torch shifts
_FIRST: Final = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND: Final = 0x94D049BB133111EB - (1 << 64)

Bits = TypeVar("Bits", Tensor, NDArray[np.int64])


@overload
def random_bits(key: Tensor, counter: Tensor | int) -> Tensor: ...
@overload
def random_bits(key: NDArray[np.uint64], counter: ArrayLike) -> NDArray[np.uint64]: ...
def random_bits(key: Tensor | NDArray[np.uint64], counter: Tensor | int | ArrayLike) -> Tensor | NDArray[np.uint64]:
    """The random 64 bits that SplitMix64, seeded with ``key``, draws at step ``counter``; the two broadcast.

    The result is again a key: ``random_bits(random_bits(key, i), j)`` is a draw for the pair (i, j).

    Args:
        key: Seeds: a tensor of int64, or an array of uint64.
        counter: Steps, of the same kind.

    Returns:
        The same bits of a tensor, as int64, and of an array, as uint64.

    References:
        Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    if isinstance(key, Tensor):
        assert isinstance(counter, (Tensor, int))
        return _mix(key, torch.zeros_like(key) + counter)
    steps = np.array(counter, ndmin=1).astype(np.int64)  # scalars would warn of overflow
    mixed: NDArray[np.uint64] = _mix(key.view(np.int64), steps).view(np.uint64)
    return mixed


def _mix(key: Bits, counter: Bits) -> Bits:
    bits = key + _INCREMENT * (counter + 1)
    bits ^= shift_right(bits, 30)
    bits *= _FIRST
    bits ^= shift_right(bits, 27)
    bits *= _SECOND
    bits ^= shift_right(bits, 31)
    return bits


def shift_right(bits: Bits, places: int) -> Bits:
    """Shift zeros in, even where the sign is set."""
    if isinstance(bits, Tensor):
        return (bits >> places) & ((1 << (64 - places)) - 1)
    return (bits.view(np.uint64) >> np.uint64(places)).view(np.int64)


@overload
def uniform(bits: Tensor) -> Tensor: ...
@overload
def uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]: ...
def uniform(bits: Tensor | NDArray[np.uint64]) -> Tensor | NDArray[np.float64]:
    """Map random 64 bits to float64: of a tensor to (0, 1), of an array to [0, 1)."""
    if isinstance(bits, Tensor):
        return (shift_right(bits, 12).double() + 0.5) * 2.0**-52
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(bits: Tensor) -> Tensor:
    """Map random 64 bits to a standard normal variate, float64, by the Box-Muller transform."""
    radius = (-2 * uniform(random_bits(bits, 0)).log()).sqrt()
    return radius * (2 * torch.pi * uniform(random_bits(bits, 1))).cos()
