from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest

from taskrobust.training.data import GlobalBatchSampler, Key


def keys(batches: int, **arguments: int) -> list[Key]:
    return list(chain.from_iterable(islice(GlobalBatchSampler(**arguments), batches)))


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    drawn = keys(30, num_samples=50, batch_size=5, seed=0)
    epochs = [[index for index, epoch in drawn if epoch == number] for number in range(3)]
    assert [epoch for _, epoch in drawn] == sorted(epoch for _, epoch in drawn)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_batches_straddle_epochs_and_drop_nothing() -> None:
    drawn = keys(10, num_samples=7, batch_size=4, seed=0)
    assert Counter(epoch for _, epoch in drawn) == {0: 7, 1: 7, 2: 7, 3: 7, 4: 7, 5: 5}
    assert len(set(drawn)) == 40


def test_batch_may_be_larger_than_the_data() -> None:
    drawn = keys(1, num_samples=3, batch_size=8, seed=0)
    assert Counter(index for index, _ in drawn[:6]) == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_share_each_step_of_the_stream(ranks: int) -> None:
    whole = keys(10, num_samples=50, batch_size=2 * ranks, seed=3)
    shares = [keys(10, num_samples=50, batch_size=2, seed=3, rank=rank, ranks=ranks) for rank in range(ranks)]
    steps = [[share[2 * step : 2 * step + 2] for share in shares] for step in range(10)]
    assert [key for step in steps for batch in step for key in batch] == whole


@pytest.mark.parametrize("start", [0, 8, 48, 52, 1000])
def test_start_goes_on_as_if_what_came_before_had_been_read(start: int) -> None:
    from_the_beginning = keys(260, num_samples=50, batch_size=4, seed=1)
    assert keys(5, num_samples=50, batch_size=4, seed=1, start=start) == from_the_beginning[start : start + 20]


def test_iterating_again_begins_again() -> None:
    sampler = GlobalBatchSampler(10, 3, seed=0)
    assert list(islice(sampler, 5)) == list(islice(sampler, 5))


def test_seeds_draw_different_permutations() -> None:
    orders = [tuple(keys(5, num_samples=50, batch_size=10, seed=seed)) for seed in range(20)]
    assert len(set(orders)) == 20


def test_empty_data_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^Expected at least one sample to train on, got an empty data set\.$"):
        GlobalBatchSampler(0, 4, seed=0)


LENGTHS = np.random.default_rng(0).integers(3, 200, size=1003)


def by_length(steps: int, step_size: int = 16, **arguments: int) -> list[Key]:
    bucketed = GlobalBatchSampler(
        len(LENGTHS), **{"batch_size": step_size, "seed": 0} | arguments, lengths=LENGTHS, step_size=step_size
    )
    return list(chain.from_iterable(islice(bucketed, steps)))


def test_epochs_by_length_are_permutations_in_another_order() -> None:
    drawn = by_length(400)
    epochs = [[index for index, epoch in drawn if epoch == number] for number in range(5)]
    assert all(sorted(epoch) == list(range(1003)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_steps_of_like_length_need_little_padding_in_every_epoch() -> None:
    lengths = np.array([LENGTHS[index] for index, _ in by_length(300)]).reshape(300, 16)
    padded = lengths.max(1).sum() * 16 / lengths.sum()
    shuffled = np.array([LENGTHS[index] for index, _ in keys(300, num_samples=1003, batch_size=16, seed=0)])
    assert padded < 1.1
    assert shuffled.reshape(300, 16).max(1).sum() * 16 / shuffled.sum() > 1.7


def test_steps_of_all_lengths_alternate() -> None:
    longest = np.array([LENGTHS[index] for index, _ in by_length(60)]).reshape(60, 16).max(1)
    assert abs(np.corrcoef(longest, np.arange(60))[0, 1]) < 0.3


def test_batches_by_length_do_not_depend_on_ranks_or_where_a_run_goes_on() -> None:
    whole = by_length(200)
    ranks = [by_length(200, batch_size=8, rank=rank, ranks=2) for rank in range(2)]
    together = [key for step in range(200) for rank in ranks for key in rank[8 * step : 8 * step + 8]]
    assert together == whole
    assert by_length(100, start=1600) == whole[1600:]
