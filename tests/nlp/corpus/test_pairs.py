from random import Random

import pytest

from taskrobust.nlp.corpus.pairs import Pair, _truncate, next_sentence_pairs

MAX_PIECES = 29


def make_documents(count: int = 300, seed: int = 0) -> list[list[int]]:
    rng = Random(seed)
    return [[rng.randint(1, 25) for _ in range(rng.randint(1, 20))] for _ in range(count)]


DOCUMENTS = make_documents()
PAIRS = list(next_sentence_pairs(DOCUMENTS, MAX_PIECES, Random(0)))
STARTS = [sum(map(sum, DOCUMENTS[:index])) for index in range(len(DOCUMENTS) + 1)]


def document_of(segment: tuple[int, int]) -> int:
    inside = [index for index in range(len(DOCUMENTS)) if STARTS[index] <= segment[0] < segment[1] <= STARTS[index + 1]]
    assert len(inside) == 1, f"{segment} is empty or crosses the border of a document"
    return inside[0]


def length(pair: Pair) -> int:
    return sum(stop - start for start, stop in (pair.first, pair.second))


def test_the_second_segment_continues_the_first_or_is_from_another_document() -> None:
    for pair in PAIRS:
        assert (document_of(pair.first) == document_of(pair.second)) != pair.is_random
        assert pair.is_random or pair.first[1] <= pair.second[0]


def test_pairs_fit_and_most_are_filled() -> None:
    lengths = [length(pair) for pair in PAIRS]
    assert max(lengths) == MAX_PIECES
    assert sum(lengths) > 0.8 * MAX_PIECES * len(lengths)


def test_about_half_of_the_pairs_are_random() -> None:
    # A chunk of one sentence has no continuation, so there are a few more than half.
    assert 0.5 < sum(pair.is_random for pair in PAIRS) / len(PAIRS) < 0.65


def test_every_sentence_is_in_a_first_segment_or_continues_one() -> None:
    long = list(next_sentence_pairs(DOCUMENTS, 10**6, Random(1)))  # nothing is truncated
    covered = [range(*pair.first) for pair in long] + [range(*pair.second) for pair in long if not pair.is_random]
    assert sorted(piece for stretch in covered for piece in stretch) == list(range(STARTS[-1]))


def test_the_same_seed_gives_the_same_pairs() -> None:
    assert list(next_sentence_pairs(DOCUMENTS, MAX_PIECES, Random(0))) == PAIRS
    assert list(next_sentence_pairs(DOCUMENTS, MAX_PIECES, Random(1))) != PAIRS


def test_a_tenth_of_the_documents_has_shorter_pairs() -> None:
    documents = [[1] * 200] * 2000
    longest = [0] * len(documents)
    for pair in next_sentence_pairs(documents, 100, Random(0)):
        index = pair.first[0] // 200
        longest[index] = max(longest[index], length(pair))
    assert 0.07 < sum(most < 100 for most in longest) / len(longest) < 0.13


@pytest.mark.parametrize("max_pieces", [2, 7, 8])
def test_truncation_leaves_the_lengths_of_the_original_loop(max_pieces: int) -> None:
    for first in range(1, 12):
        for second in range(1, 12):
            expected = [first, second]
            while sum(expected) > max_pieces:
                expected[0 if expected[0] > expected[1] else 1] -= 1
            segments = _truncate((5, 5 + first), (100, 100 + second), max_pieces, Random(0))
            assert [stop - start for start, stop in segments] == expected
            assert 5 <= segments[0][0] <= segments[0][1] <= 5 + first
            assert 100 <= segments[1][0] <= segments[1][1] <= 100 + second


def test_truncation_removes_pieces_from_both_ends_equally() -> None:
    taken = [_truncate((0, 100), (0, 10), 60, Random(seed))[0] for seed in range(400)]
    mean = sum(start for start, _ in taken) / len(taken)
    assert 24 < mean < 26  # 50 pieces by a fair coin; the standard error of the mean is 0.18


def test_a_single_document_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Expected at least two documents, .*, got 1"):
        list(next_sentence_pairs([[3, 4]], MAX_PIECES, Random(0)))
