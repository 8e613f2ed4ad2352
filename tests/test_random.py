import numpy as np

from taskrobust._random import random_bits, uniform


def test_draws_are_those_of_splitmix64() -> None:
    key = np.array([1234567], dtype=np.uint64)  # the seed and the outputs commonly published for the algorithm
    assert random_bits(key, np.arange(3)).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_draw_depends_on_key_and_counter_only() -> None:
    keys = np.arange(40, dtype=np.uint64)
    table = random_bits(keys[:, None], np.arange(50))
    assert table.shape == (40, 50)
    assert random_bits(keys[7:8], 13) == table[7, 13]
    assert len(np.unique(random_bits(random_bits(keys, 3)[:, None], np.arange(50)))) == table.size


def test_uniform_draws_fill_the_unit_interval_evenly() -> None:
    draws = uniform(random_bits(np.array([0], dtype=np.uint64), np.arange(100_000)))
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert ((counts - 5000) ** 2 / 5000).sum() < 50.0  # chi-square with 19 degrees of freedom: p = 1e-4
    assert uniform(np.array([2**64 - 1], dtype=np.uint64)) < 1
