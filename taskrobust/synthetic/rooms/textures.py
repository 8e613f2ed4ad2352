"""Surface patterns. All labels draw from the same ones, so that a pattern does not give its label away."""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

TEXTURES: Final = 64
"""Number of patterns."""

SIDE: Final = 64
"""Side of a pattern in points; it repeats."""

_SEED: Final = 7
_OCTAVES: Final = 4


@cache
def textures() -> NDArray[np.float32]:
    """The patterns, between 0 and 1, [64, 64, 64]: plain, stripes, checks, clouds, wood, tiles, bricks, grain."""
    generator = np.random.default_rng(_SEED)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    patterns = np.empty((TEXTURES, SIDE, SIDE), np.float32)
    for number in range(TEXTURES):
        frequency = int(generator.integers(1, 7))
        clouds = _clouds(generator)
        patterns[number] = _pattern(number % 8, frequency, x, y, clouds, generator)
    return patterns


def _pattern(
    kind: int,
    frequency: int,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    clouds: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    across, down = x * frequency, y * frequency
    match kind:
        case 0:  # plain
            return 0.7 + 0.1 * clouds
        case 1:  # stripes
            return 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * across))
        case 2:  # checks
            return (np.floor(2 * across) + np.floor(2 * down)) % 2
        case 3:
            return clouds
        case 4:  # wood
            return 0.5 + 0.5 * np.sin(2 * np.pi * (across + 1.5 * clouds))
        case 5:  # tiles
            return ((across % 1 > 0.06) & (down % 1 > 0.06)) * (0.8 + 0.2 * clouds)
        case 6:  # bricks, every second row shifted by half of one
            shifted = (across + 0.5 * (np.floor(2 * down) % 2)) % 1
            return ((shifted > 0.08) & (2 * down % 1 > 0.12)) * (0.7 + 0.3 * clouds)
        case _:  # grain
            return 0.3 * generator.random((SIDE, SIDE)) + 0.7 * clouds


def _clouds(generator: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise of several octaves that repeats at the edges, between 0 and 1."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(_OCTAVES):
        cells = 2 ** (octave + 1)
        grid = generator.random((cells, cells))
        position = np.arange(SIDE) * cells / SIDE
        first = position.astype(int)
        second = (first + 1) % cells
        share = position - first
        share = share * share * (3 - 2 * share)
        rows = grid[first] * (1 - share)[:, None] + grid[second] * share[:, None]
        total += 0.5**octave * (rows[:, first] * (1 - share) + rows[:, second] * share)
    clouds: NDArray[np.float64] = (total - total.min()) / (np.ptp(total) + 1e-9)
    return clouds
