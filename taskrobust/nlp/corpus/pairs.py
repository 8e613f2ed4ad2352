"""The pairs of text segments for next sentence prediction."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple, TypeAlias

_Range: TypeAlias = tuple[int, int]

SHORT_SEQUENCES: Final = 0.1
"""Fraction of the documents that are split into pairs of a random, shorter length."""


class Pair(NamedTuple):
    """Two segments, each a range [start, stop) of the concatenated pieces of all documents."""

    first: _Range
    second: _Range
    is_random: bool


def next_sentence_pairs(documents: Sequence[Sequence[int]], max_pieces: int, rng: Random) -> Iterator[Pair]:
    """Split documents into pairs of segments like the original BERT.

    Consecutive sentences of a document are collected until they have the target number of pieces, and split at a random
    sentence. In half of the pairs, the second segment is the remainder (a continuation). In the others, it starts at a
    random sentence of another document, and the remainder starts the next pair. Too long a pair loses pieces at random
    ends of its longer segment.

    Args:
        documents: Number of pieces of each sentence of each document, all positive.
        max_pieces: Maximum number of pieces of a pair, not including special tokens.
        rng: Source of the random choices.

    Raises:
        ValueError: If there are fewer than two documents.

    References:
        Devlin et al., BERT, NAACL 2019, appendix A.2; ``create_pretraining_data.py`` of google-research/bert.
    """
    if len(documents) < 2:
        raise ValueError(
            "Expected at least two documents, because next sentence prediction draws sentences from another one, got "
            f"{len(documents)}. In plain text, separate documents by a blank line."
        )
    # bounds[d][s] is the start of sentence s of document d, and the last bound is the end of the document.
    first_piece = [0, *accumulate(map(sum, documents))]
    bounds = [
        list(accumulate(document, initial=start)) for document, start in zip(documents, first_piece, strict=False)
    ]
    for index, own in enumerate(bounds):
        sentences = len(own) - 1
        target = rng.randint(2, max_pieces) if rng.random() < SHORT_SEQUENCES else max_pieces
        begin = 0
        while begin < sentences:
            end = begin + 1
            while end < sentences and own[end] - own[begin] < target:
                end += 1
            split = begin + 1 if end == begin + 1 else rng.randrange(begin + 1, end)
            is_random = end == begin + 1 or rng.random() < 0.5
            if is_random:
                other = bounds[_another(index, len(bounds), rng)]
                start = rng.randrange(len(other) - 1)
                stop = start + 1
                while stop < len(other) - 1 and other[stop] - other[start] < target - (own[split] - own[begin]):
                    stop += 1
                second = other[start], other[stop]
                next_begin = split
            else:
                second = own[split], own[end]
                next_begin = end
            first, second = _truncate((own[begin], own[split]), second, max_pieces, rng)
            yield Pair(first, second, is_random)
            begin = next_begin


def _another(index: int, count: int, rng: Random) -> int:
    """A random number below ``count`` other than ``index``."""
    other = rng.randrange(count - 1)
    return other + (other >= index)


def _truncate(first: _Range, second: _Range, max_pieces: int, rng: Random) -> tuple[_Range, _Range]:
    """Removes pieces from the longer segment, one by one at random ends, until the pair fits."""
    first_length, second_length = first[1] - first[0], second[1] - second[0]
    second_kept = min(second_length, max(max_pieces // 2, max_pieces - first_length))
    first_kept = min(first_length, max_pieces - second_kept)
    return _shorten(first, first_length - first_kept, rng), _shorten(second, second_length - second_kept, rng)


def _shorten(segment: _Range, pieces: int, rng: Random) -> _Range:
    from_the_front = rng.getrandbits(pieces).bit_count()  # number of heads in one coin toss per piece
    return segment[0] + from_the_front, segment[1] - (pieces - from_the_front)
