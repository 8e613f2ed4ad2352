"""Which stretches of text make the pairs of next-sentence prediction."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple, TypeAlias

_Range: TypeAlias = tuple[int, int]

SHORT_SEQUENCES: Final = 0.1
"""Share of the documents that are cut into pairs of a random, shorter length."""


class Pair(NamedTuple):
    """Two segments, each a range [start, stop) of the pieces that lie one after the other through all documents."""

    first: _Range
    second: _Range
    is_random: bool


def next_sentence_pairs(documents: Sequence[Sequence[int]], max_pieces: int, rng: Random) -> Iterator[Pair]:
    """Cuts documents into pairs of segments as the original BERT does.

    A document's sentences are gathered until they hold the wanted number of pieces and split at a random sentence. In
    half of the pairs the second segment is the rest (a continuation), in the others it starts at a random sentence of
    another document, and the sentences it replaces begin the next pair. A pair that is too long loses pieces at a
    random end of its longer segment.

    Args:
        documents: For each document the number of pieces of each of its sentences, all positive.
        max_pieces: Number of pieces of a pair at most, the special tokens not included.
        rng: Source of the random choices.

    Raises:
        ValueError: Where there are fewer than two documents to draw from.

    References:
        Devlin et al., BERT, NAACL 2019, appendix A.2; ``create_pretraining_data.py`` of google-research/bert.
    """
    if len(documents) < 2:
        raise ValueError(
            f"Next-sentence prediction draws from other documents: expected at least two, got {len(documents)}. "
            "In plain text a blank line separates documents."
        )
    # bounds[d][s] is where sentence s of document d starts; the last bound is where the document ends.
    first_piece = [0, *accumulate(map(sum, documents))]
    bounds = [
        list(accumulate(document, initial=start)) for document, start in zip(documents, first_piece, strict=False)
    ]
    for index, own in enumerate(bounds):
        sentences = len(own) - 1
        wanted = rng.randint(2, max_pieces) if rng.random() < SHORT_SEQUENCES else max_pieces
        begin = 0
        while begin < sentences:
            end = begin + 1
            while end < sentences and own[end] - own[begin] < wanted:
                end += 1
            split = begin + 1 if end == begin + 1 else rng.randrange(begin + 1, end)
            is_random = end == begin + 1 or rng.random() < 0.5
            if is_random:
                other = bounds[_another(index, len(bounds), rng)]
                start = rng.randrange(len(other) - 1)
                stop = start + 1
                while stop < len(other) - 1 and other[stop] - other[start] < wanted - (own[split] - own[begin]):
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
    """Takes pieces off the longer segment, one at a time and at either end by a fair coin, until the pair fits."""
    first_length, second_length = first[1] - first[0], second[1] - second[0]
    second_kept = min(second_length, max(max_pieces // 2, max_pieces - first_length))
    first_kept = min(first_length, max_pieces - second_kept)
    return _shorten(first, first_length - first_kept, rng), _shorten(second, second_length - second_kept, rng)


def _shorten(segment: _Range, pieces: int, rng: Random) -> _Range:
    from_the_front = rng.getrandbits(pieces).bit_count()  # heads in as many tosses as there are pieces to take off
    return segment[0] + from_the_front, segment[1] - (pieces - from_the_front)
