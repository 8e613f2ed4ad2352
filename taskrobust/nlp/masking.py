"""Masking of words of the nine part-of-speech classes: turns pairs of the corpus into batches for the model."""

import inspect
import math
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust._random import random_bits, uniform
from taskrobust.nlp.corpus.store import CLASS_BITS, WORD_START, PairBatch
from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE

Grouping = Literal["token", "sequence", "copies"]
Schedule = Literal["static", "dynamic"]

STATIC_MASKS: Final = 10
"""Masks per sequence under the static schedule. BERT's data were duplicated ten times before masking."""

_CLASS_BITS: Final = np.uint8(CLASS_BITS)  # same type as the flags, which is faster
_WORD_START: Final = np.uint8(WORD_START)

# Purposes of the random numbers of a sequence.
_WORD_ORDER, _REPLACEMENT, _SEQUENCE_CLASS = range(3)

# Sort key of a word: 8 bits stratum (the lowest is drawn first), 40 random bits, 16 bits position.
_STRATUM: Final = np.uint64(56)
_RANDOM_BITS: Final = np.uint64((1 << 56) - (1 << 16))
_POSITION_BITS: Final = np.uint64((1 << 16) - 1)
_NO_WORD: Final = np.uint64((1 << 64) - 1)


class Masking:
    """Masks 15 % of the pieces, as whole words of the nine classes, and records the class of each masked piece.

    Words (Penn Treebank tokens) are drawn in random order while their pieces fit into the budget, which is
    ``mask_fraction`` times the number of pieces of the nine classes in the sequence, but at least one word. Of the
    masked pieces, 80 % become the mask token, 10 % a random piece, and 10 % are left unchanged.

    The mask depends on the seed, the sequence and the epoch only, not on the batch, the worker or the process. For
    sequences of length S, no sequence has more than ``ceil(mask_fraction * S)`` masked pieces, and a word with more
    pieces than that is never masked.

    Args:
        tokenizer: The tokenizer of the corpus.
        grouping: "token" masks words of all classes in each sequence. "sequence" draws one class per sequence, among
            those present, and masks only words of that class. "copies" concatenates nine copies of the batch and masks
            only words of one class in each, in the order of ``CLASSES``. The budget is always that of all classes, so
            "sequence" and "copies" mask most words of a small class.
        mask_fraction: Fraction of the pieces of the nine classes to mask.
        stratified: Whether to mask rare classes as often as common ones, by drawing one word of each class in the
            sequence, then a second one of each, and so on.
        schedule: "static" repeats the masks of a sequence after ten epochs, "dynamic" never does.
        fixed_size: Whether to fill up the masked positions to ``ceil(mask_fraction * S)`` per sequence with rows of
            class ``OUTSIDE``, which count nowhere, so that ``torch.compile`` sees static shapes.
        unpadded: Whether to concatenate the sequences in a single row without padding.
        seed: Seed of the masks.

    Raises:
        ValueError: If the mask fraction is not in (0, 1], or the tokenizer has no mask token.

    References:
        Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019, section 3.1.
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, section 4.1.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        grouping: Grouping = "token",
        mask_fraction: float = 0.15,
        stratified: bool = False,
        schedule: Schedule = "static",
        fixed_size: bool = False,
        unpadded: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0 < mask_fraction <= 1:
            raise ValueError(f"Expected a mask_fraction above 0 and up to 1, got {mask_fraction}.")
        if tokenizer.mask_token_id is None:
            raise ValueError("Expected a tokenizer with a mask token, got one without. Use one trained for BERT.")
        self.grouping = grouping
        self.mask_fraction = mask_fraction
        self.stratified = stratified
        self.schedule = schedule
        self.fixed_size = fixed_size
        self.unpadded = unpadded
        self.seed = seed
        self.mask_id: int = tokenizer.mask_token_id
        self.ordinary_ids = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)

    def __repr__(self) -> str:
        """The settings, as they were given to the constructor."""
        names = inspect.signature(Masking).parameters.keys() - {"tokenizer"}
        return f"Masking({', '.join(f'{name}={value!r}' for name, value in vars(self).items() if name in names)})"

    def __call__(self, pairs: PairBatch) -> dict[str, Tensor]:
        """Mask a batch.

        Args:
            pairs: B pairs of segments of the corpus.

        Returns:
            The keyword arguments of the model, for B sequences (9 B with "copies") of length S and M masked pieces:
            input_ids, token_type_ids, attention_mask: int64 [B, S];
            masked_positions: ascending indices into the flattened ``input_ids``, int64 [M];
            labels, classes: original pieces at these positions, and their classes, int64 [M];
            next_sentence_label: 0 if the second segment continues the first, 1 if it is a random one, int64 [B].
            In an unpadded batch of N pieces, input_ids, token_type_ids and position_ids are int64 [1, N], cu_seqlens is
            the start of each sequence, then N, int32 [B + 1], and there is no attention_mask.
        """
        if self.grouping == "copies":
            pairs = PairBatch(*(np.concatenate([column] * len(CLASSES)) for column in pairs))
        keys = self._keys_of_sequences(pairs.keys)
        positions = self._draw_pieces(pairs.flags, keys)
        labels = pairs.input_ids.ravel()[positions]
        classes = pairs.flags.ravel()[positions] & _CLASS_BITS
        input_ids = self._replace(pairs.input_ids, positions, keys)
        batch = _lay_out(pairs, input_ids)
        if self.unpadded:
            batch, positions = _without_padding(batch, pairs.lengths, positions)
        if self.fixed_size:
            padding = (0, self._most_pieces(pairs.flags.shape[1]) * len(keys) - len(positions))
            positions, labels = np.pad(positions, padding), np.pad(labels, padding)
            classes = np.pad(classes, padding, constant_values=OUTSIDE)
        batch |= {"masked_positions": positions, "labels": labels, "classes": classes.astype(np.int64)}
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _keys_of_sequences(self, index_and_epoch: NDArray[np.int64]) -> NDArray[np.uint64]:
        index, epoch = index_and_epoch.T
        if self.schedule == "static":
            epoch = epoch % STATIC_MASKS
        return random_bits(random_bits(np.array([self.seed], dtype=np.uint64), index), epoch)

    def _most_pieces(self, length: int) -> int:
        return math.ceil(self.mask_fraction * length)

    def _draw_pieces(self, flags: NDArray[np.uint8], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The flat positions of the pieces to mask, ascending."""
        sequences, length = flags.shape
        classes = flags & _CLASS_BITS
        in_class = classes < OUTSIDE
        budget = np.rint(self.mask_fraction * np.count_nonzero(in_class, axis=1))

        # Each special token is a word, so a word ends where the next one starts, even across rows.
        starts = np.flatnonzero(flags >= _WORD_START)
        pieces_of_word = np.zeros(flags.size, dtype=np.int64)
        pieces_of_word[starts] = np.diff(starts, append=flags.size)

        maskable = in_class & (flags >= _WORD_START)
        maskable &= (pieces_of_word <= self._most_pieces(length)).reshape(flags.shape)
        if self.grouping == "copies":
            maskable &= classes == np.repeat(np.arange(len(CLASSES)), sequences // len(CLASSES))[:, None]
        elif self.grouping == "sequence":
            maskable &= classes == _draw_class(classes, maskable, keys)[:, None]

        order = self._draw_order(classes, maskable, keys)
        words = (order & _POSITION_BITS).astype(np.int64) + np.arange(0, flags.size, length)[:, None]
        drawn = order != _NO_WORD
        pieces = np.cumsum(pieces_of_word[np.where(drawn, words, 0)], axis=1)
        drawn[:, 1:] &= pieces[:, 1:] <= budget[:, None]

        words = np.sort(words[drawn])
        pieces_of_word = pieces_of_word[words]
        words_end = np.cumsum(pieces_of_word)
        first_piece = np.repeat(words - words_end + pieces_of_word, pieces_of_word)
        return first_piece + np.arange(len(first_piece))

    def _draw_order(
        self, classes: NDArray[np.uint8], maskable: NDArray[np.bool_], keys: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Sort keys of the words of each sequence in drawing order, truncated to the number that can be masked."""
        length = classes.shape[1]
        position = np.arange(length, dtype=np.uint64)
        order = random_bits(random_bits(keys, _WORD_ORDER)[:, None], position)
        order &= _RANDOM_BITS
        order |= position
        if self.stratified:
            order, maskable = _draw_classes_in_turn(order, classes, maskable)
        order |= _no_word_unless(maskable)
        order.sort(axis=1)
        return order[:, : self._most_pieces(length)]

    def _replace(
        self, input_ids: NDArray[np.int64], positions: NDArray[np.int64], keys: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        sequence, position = np.divmod(positions, input_ids.shape[1])
        bits = random_bits(random_bits(keys, _REPLACEMENT)[sequence], position)
        fate = uniform(bits)
        replaced = input_ids.copy()
        replaced.ravel()[positions[fate < 0.8]] = self.mask_id
        at_random = (fate >= 0.8) & (fate < 0.9)
        pick = uniform(random_bits(bits[at_random], 0)) * len(self.ordinary_ids)
        replaced.ravel()[positions[at_random]] = self.ordinary_ids[pick.astype(np.int64)]
        return replaced


def _no_word_unless(maskable: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """0 where maskable, else ``_NO_WORD``. Several times faster than assignment through a boolean index."""
    return maskable.astype(np.uint64) - np.uint64(1)


def _draw_class(classes: NDArray[np.uint8], maskable: NDArray[np.bool_], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Draws one of the classes present in each sequence, or an arbitrary one if there is none."""
    present = np.stack([((classes == c) & maskable).any(axis=1) for c in range(len(CLASSES))], axis=1)
    count = np.cumsum(present, axis=1)
    pick = np.floor(uniform(random_bits(keys, _SEQUENCE_CLASS)) * count[:, -1])
    drawn: NDArray[np.int64] = np.argmax(count > pick[:, None], axis=1)
    return drawn


def _draw_classes_in_turn(
    order: NDArray[np.uint64], classes: NDArray[np.uint8], maskable: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Makes the rank of each word within its class its stratum. The words are reordered within their rows."""
    by_class = order | classes.astype(np.uint64) << _STRATUM
    by_class |= _no_word_unless(maskable)
    by_class.sort(axis=1)
    column = np.arange(by_class.shape[1])
    class_ = by_class >> _STRATUM
    changes = np.diff(class_, axis=1, prepend=class_[:, :1]) != 0
    rank = column - np.maximum.accumulate(np.where(changes, column, 0), axis=1)
    stratum = np.minimum(rank, 254).astype(np.uint64) << _STRATUM
    return by_class & (_RANDOM_BITS | _POSITION_BITS) | stratum, by_class != _NO_WORD


def _lay_out(pairs: PairBatch, input_ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    position = np.arange(input_ids.shape[1])
    inside = position < pairs.lengths[:, None]
    second = (position >= pairs.first[:, None] + 2) & inside
    return {
        "input_ids": input_ids,
        "token_type_ids": second.astype(np.int64),
        "attention_mask": inside.astype(np.int64),
        "next_sentence_label": pairs.is_random.astype(np.int64),
    }


def _without_padding(
    batch: dict[str, NDArray[Any]], lengths: NDArray[np.int64], positions: NDArray[np.int64]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    inside = batch.pop("attention_mask").astype(np.bool_)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    sequence, position = np.divmod(positions, inside.shape[1])
    unpadded = batch | {
        "input_ids": batch["input_ids"][inside][None],
        "token_type_ids": batch["token_type_ids"][inside][None],
        "position_ids": (np.arange(ends[-1]) - np.repeat(starts, lengths))[None],
        "cu_seqlens": np.append(0, ends).astype(np.int32),
    }
    return unpadded, starts[sequence] + position
