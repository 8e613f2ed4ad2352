"""Counter-based random numbers on any device: a draw is a hash of its key and counter, whatever was drawn before."""

import torch
from torch import Tensor


def hash_of(key: Tensor, counter: Tensor | int) -> Tensor:
    """The random 64 bits of ``taskrobust.hashing.hash_of``, as int64; key and counter broadcast."""
    steps = torch.zeros_like(key) + counter + 1
    bits = key + steps * _signed(0x9E3779B97F4A7C15)
    bits = (bits ^ shift_right(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ shift_right(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ shift_right(bits, 31)


def uniform(bits: Tensor) -> Tensor:
    """Maps random 64 bits to the open interval (0, 1), float64."""
    return (shift_right(bits, 12).double() + 0.5) * 2.0**-52


def normal(bits: Tensor) -> Tensor:
    """Maps random 64 bits to a standard normal variate, float64, by the Box-Muller transform."""
    radius = (-2 * uniform(hash_of(bits, 0)).log()).sqrt()
    return radius * (2 * torch.pi * uniform(hash_of(bits, 1))).cos()


def _signed(bits: int) -> int:
    return bits - (1 << 64)


def shift_right(bits: Tensor, places: int) -> Tensor:
    """Shifts in zeros, also where the sign is set."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
