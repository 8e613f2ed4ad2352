import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertTokenizer

from taskrobust.nlp.corpus.store import PairBatch
from taskrobust.nlp.masking import Masking
from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE

PAD, UNK, CLS, SEP, MASK = range(5)
VOCAB_SIZE = 105
VERB, NOUN, ADJECTIVE, INTERJECTION = (CLASSES.index(name) for name in ("verb", "noun", "adjective", "interjection"))

Words = Sequence[tuple[int, int]]  # (class, number of pieces) of each word


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ordinary = [f"word{i}" for i in range(VOCAB_SIZE - len(special))]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(special + ordinary)})


def make_pairs(segments: Sequence[tuple[Words, Words]], length: int, epoch: int = 0) -> PairBatch:
    """Pairs of segments with random ordinary pieces."""
    count = len(segments)
    input_ids = np.full((count, length), PAD)
    flags = np.full((count, length), OUTSIDE | 16, dtype=np.uint8)
    lengths, first = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    rng = np.random.default_rng(0)
    for row, (a, b) in enumerate(segments):
        pieces_a, pieces_b = (
            [class_ | (16 if piece == 0 else 0) for class_, pieces in words for piece in range(pieces)]
            for words in (a, b)
        )
        first[row], lengths[row] = len(pieces_a), len(pieces_a) + len(pieces_b) + 3
        flags[row, 1 : first[row] + 1] = pieces_a
        flags[row, first[row] + 2 : lengths[row] - 1] = pieces_b
        input_ids[row, : lengths[row]] = rng.integers(5, VOCAB_SIZE, lengths[row])
        input_ids[row, [0, first[row] + 1, lengths[row] - 1]] = CLS, SEP, SEP
    keys = np.stack([np.arange(count), np.full(count, epoch)], axis=1)
    return PairBatch(keys, input_ids, flags, lengths, first, np.arange(count) % 2 == 1)


def random_pairs(count: int, length: int = 64, epoch: int = 0) -> PairBatch:
    rng = np.random.default_rng(1)

    def words(room: int) -> Words:
        pieces = rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1], size=room // 3)
        return [(int(rng.integers(0, 10)), int(n)) for n in pieces]

    rooms = rng.integers(12, (length - 3) // 2, size=(count, 2))
    return make_pairs([(words(a), words(b)) for a, b in rooms], length, epoch)


def words_of(pairs: PairBatch, row: int) -> Iterator[tuple[int, list[int]]]:
    """Class and positions of each word of a sequence, without special tokens."""
    special = {0, int(pairs.first[row]) + 1, int(pairs.lengths[row]) - 1}
    positions: list[int] = []
    for position in [p for p in range(int(pairs.lengths[row])) if p not in special]:
        if pairs.flags[row, position] & 16 and positions:
            yield int(pairs.flags[row, positions[0]] & 15), positions
            positions = []
        positions.append(position)
    yield int(pairs.flags[row, positions[0]] & 15), positions


def masked_of_rows(batch: dict[str, Tensor]) -> list[set[int]]:
    """The masked positions of each sequence."""
    sequences, length = batch["input_ids"].shape
    rows: list[set[int]] = [set() for _ in range(sequences)]
    for position, class_ in zip(batch["masked_positions"].tolist(), batch["classes"].tolist(), strict=True):
        if class_ != OUTSIDE:
            rows[position // length].add(position % length)
    return rows


def with_epoch(pairs: PairBatch, epoch: int) -> PairBatch:
    return pairs._replace(keys=np.stack([pairs.keys[:, 0], np.full(len(pairs.keys), epoch)], axis=1))


def take(pairs: PairBatch, rows: Sequence[int] | NDArray[np.int64]) -> PairBatch:
    return PairBatch(*(column[rows] for column in pairs))


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_printing_shows_the_settings(tokenizer: BertTokenizer) -> None:
    assert repr(Masking(tokenizer, grouping="copies", seed=3)) == (
        "Masking(grouping='copies', mask_fraction=0.15, stratified=False, schedule='static', fixed_size=False, "
        "unpadded=False, seed=3)"
    )


def test_a_batch_by_hand(tokenizer: BertTokenizer) -> None:
    pairs = make_pairs([([(NOUN, 2)], [(OUTSIDE, 1)]), ([(OUTSIDE, 1)], [(VERB, 1), (OUTSIDE, 1)])], length=8)
    batch = Masking(tokenizer)(pairs)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0]]
    assert batch["masked_positions"].tolist() == [1, 2, 8 + 3]
    assert batch["classes"].tolist() == [NOUN, NOUN, VERB]
    assert batch["labels"].tolist() == [pairs.input_ids[0, 1], pairs.input_ids[0, 2], pairs.input_ids[1, 3]]
    assert batch["next_sentence_label"].tolist() == [0, 1]
    assert {array.dtype for array in batch.values()} == {torch.int64}


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("mask_fraction", [0.15, 0.4])
def test_words_are_masked_whole_and_up_to_the_budget(
    tokenizer: BertTokenizer, stratified: bool, mask_fraction: float
) -> None:
    pairs = random_pairs(100)
    batch = Masking(tokenizer, mask_fraction=mask_fraction, stratified=stratified)(pairs)
    for row, masked in enumerate(masked_of_rows(batch)):
        words = [positions for class_, positions in words_of(pairs, row) if class_ != OUTSIDE]
        budget = round(mask_fraction * sum(map(len, words)))
        masked_words = [positions for positions in words if masked.intersection(positions)]
        assert masked == {position for positions in masked_words for position in positions}
        assert masked_words
        assert len(masked) <= budget or len(masked_words) == 1
        assert len(masked) > budget - max(map(len, words))


def test_only_words_of_the_nine_classes_are_masked_and_labelled_with_their_class(tokenizer: BertTokenizer) -> None:
    pairs = random_pairs(200)
    batch = Masking(tokenizer)(pairs)
    positions = batch["masked_positions"].numpy()
    assert set(batch["classes"].tolist()) == set(range(len(CLASSES)))
    np.testing.assert_array_equal(batch["classes"], pairs.flags.ravel()[positions] & 15)
    np.testing.assert_array_equal(batch["labels"], pairs.input_ids.ravel()[positions])
    assert (np.diff(positions) > 0).all()
    elsewhere = np.setdiff1d(np.arange(pairs.input_ids.size), positions)
    np.testing.assert_array_equal(batch["input_ids"].flatten()[elsewhere], pairs.input_ids.ravel()[elsewhere])


def test_masked_pieces_are_replaced_in_the_proportions_80_10_10(tokenizer: BertTokenizer) -> None:
    batch = Masking(tokenizer)(random_pairs(4000))
    seen = batch["input_ids"].flatten()[batch["masked_positions"]]
    at_random = seen[(seen != MASK) & (seen != batch["labels"])]
    ordinary = VOCAB_SIZE - 5
    for share, expected in [
        ((seen == MASK).double().mean(), 0.8),
        ((seen == batch["labels"]).double().mean(), 0.1 + 0.1 / ordinary),
    ]:
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / len(seen))
    counts = torch.bincount(at_random, minlength=VOCAB_SIZE)
    assert counts[:5].sum() == 0
    chi_square = ((counts[5:] - len(at_random) / ordinary) ** 2 / (len(at_random) / ordinary)).sum()
    assert chi_square < 99 + 5 * math.sqrt(2 * 99)


def test_every_word_is_masked_equally_often(tokenizer: BertTokenizer) -> None:
    epochs, words = 4000, 40
    pairs = make_pairs([([(NOUN, 1)] * 10 + [(VERB, 1)] * 10, [(ADJECTIVE, 1)] * 20)], length=43)
    every_epoch = take(pairs, [0] * epochs)._replace(keys=np.stack([np.zeros(epochs, int), np.arange(epochs)], axis=1))
    batch = Masking(tokenizer, schedule="dynamic")(every_epoch)
    counts = torch.bincount(batch["masked_positions"] % 43, minlength=43).double()
    share = 0.15
    assert counts.sum() == share * words * epochs
    special = torch.tensor([0, 21, 42])
    assert counts[special].sum() == 0
    counts_of_words = counts[torch.isin(torch.arange(43), special, invert=True)]
    deviation = (counts_of_words / epochs - share).abs().max()
    assert deviation < 5 * math.sqrt(share * (1 - share) / epochs)


def test_stratified_masking_draws_a_word_of_each_class_in_turn(tokenizer: BertTokenizer) -> None:
    segments = ([(NOUN, 1)] * 50 + [(INTERJECTION, 1)], [(VERB, 1)] * 40 + [(ADJECTIVE, 1)] * 9)
    pairs = make_pairs([segments] * 300, length=103)
    for stratified, expected_interjections in [(True, 300), (False, 0.15 * 300)]:
        batch = Masking(tokenizer, stratified=stratified)(pairs)
        interjections = int((batch["classes"] == INTERJECTION).sum())
        assert abs(interjections - expected_interjections) <= (0 if stratified else 5 * math.sqrt(300 * 0.15 * 0.85))
    stratified_batch = Masking(tokenizer, stratified=True)(pairs)
    for masked in masked_of_rows(stratified_batch):
        classes = [int(pairs.flags[0, position] & 15) for position in masked]
        counts = [classes.count(class_) for class_ in (NOUN, VERB, ADJECTIVE)]
        assert sum(counts) == 14
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("grouping", ["token", "sequence"])
@pytest.mark.parametrize("stratified", [False, True])
def test_a_mask_depends_on_no_other_sequence_of_the_batch(
    tokenizer: BertTokenizer, grouping: str, stratified: bool
) -> None:
    pairs = random_pairs(40)
    masking = Masking(tokenizer, grouping=grouping, stratified=stratified, seed=3)
    together = masking(pairs)
    order = np.random.default_rng(0).permutation(40)
    shuffled = masking(take(pairs, order))
    torch.testing.assert_close(shuffled["input_ids"], together["input_ids"][order], rtol=0, atol=0)
    assert masked_of_rows(shuffled) == [masked_of_rows(together)[row] for row in order]
    for row in (0, 17):
        alone = masking(take(pairs, [row]))
        torch.testing.assert_close(alone["input_ids"][0], together["input_ids"][row], rtol=0, atol=0)
        assert masked_of_rows(alone) == [masked_of_rows(together)[row]]


def test_a_static_mask_returns_after_ten_epochs_and_a_dynamic_one_does_not(tokenizer: BertTokenizer) -> None:
    pairs = random_pairs(20)
    static, dynamic = (Masking(tokenizer, schedule=schedule) for schedule in ("static", "dynamic"))
    assert_equal(static(with_epoch(pairs, 13)), static(with_epoch(pairs, 3)))
    static_masks = [masked_of_rows(static(with_epoch(pairs, epoch))) for epoch in range(10)]
    dynamic_masks = [masked_of_rows(dynamic(with_epoch(pairs, epoch))) for epoch in range(20)]
    for masks in (static_masks, dynamic_masks):
        assert all(masks[i] != masks[j] for i in range(len(masks)) for j in range(i))


def test_another_seed_gives_other_masks(tokenizer: BertTokenizer) -> None:
    pairs = random_pairs(20)
    assert masked_of_rows(Masking(tokenizer, seed=0)(pairs)) != masked_of_rows(Masking(tokenizer, seed=1)(pairs))


def test_sequence_grouping_masks_words_of_one_present_class_drawn_evenly(tokenizer: BertTokenizer) -> None:
    segments = ([(NOUN, 1)] * 20, [(VERB, 1)] * 4 + [(INTERJECTION, 2)])
    pairs = make_pairs([segments] * 3000, length=32)
    batch = Masking(tokenizer, grouping="sequence")(pairs)
    drawn = []
    for masked in masked_of_rows(batch):
        classes = {int(pairs.flags[0, position] & 15) for position in masked}
        assert len(classes) == 1
        drawn += classes
        budget = round(0.15 * 26)
        assert len(masked) == {NOUN: budget, VERB: min(budget, 4), INTERJECTION: 2}[drawn[-1]]
    for class_ in (NOUN, VERB, INTERJECTION):
        assert abs(drawn.count(class_) - 1000) < 5 * math.sqrt(3000 * 2 / 9)


def test_copies_mask_one_class_each(tokenizer: BertTokenizer) -> None:
    pairs = random_pairs(30)
    batch = Masking(tokenizer, grouping="copies")(pairs)
    rows = masked_of_rows(batch)
    assert len(rows) == 9 * 30
    for copy in range(9):
        for row in range(30):
            words = [positions for class_, positions in words_of(pairs, row) if class_ == copy]
            available = {position for positions in words for position in positions}
            masked = rows[30 * copy + row]
            assert masked <= available
            assert bool(masked) == bool(words)
            untouched = [position for position in range(64) if position not in masked]
            np.testing.assert_array_equal(
                batch["input_ids"][30 * copy + row][untouched], pairs.input_ids[row][untouched]
            )
    assert batch["next_sentence_label"].tolist() == pairs.is_random.astype(int).tolist() * 9
    for name in ("token_type_ids", "attention_mask"):
        torch.testing.assert_close(batch[name], Masking(tokenizer)(pairs)[name].repeat(9, 1), rtol=0, atol=0)


@pytest.mark.parametrize("grouping", ["token", "sequence", "copies"])
@pytest.mark.parametrize("unpadded", [False, True])
def test_a_batch_of_fixed_size_adds_only_rows_that_count_nowhere(
    tokenizer: BertTokenizer, grouping: str, unpadded: bool
) -> None:
    pairs = random_pairs(30)
    free = Masking(tokenizer, grouping=grouping, unpadded=unpadded)(pairs)
    fixed = Masking(tokenizer, grouping=grouping, unpadded=unpadded, fixed_size=True)(pairs)
    count = len(free["labels"])
    assert len(fixed["labels"]) == len(fixed["next_sentence_label"]) * math.ceil(0.15 * 64)
    for name, filler in [("masked_positions", 0), ("labels", 0), ("classes", OUTSIDE)]:
        torch.testing.assert_close(fixed[name][:count], free[name], rtol=0, atol=0)
        assert set(fixed.pop(name)[count:].tolist()) == {filler}
        free.pop(name)
    assert_equal(fixed, free)


@pytest.mark.parametrize("grouping", ["token", "copies"])
def test_a_batch_without_padding_has_the_content_of_the_padded_one(tokenizer: BertTokenizer, grouping: str) -> None:
    pairs = random_pairs(30)
    padded = Masking(tokenizer, grouping=grouping)(pairs)
    unpadded = Masking(tokenizer, grouping=grouping, unpadded=True)(pairs)
    assert "attention_mask" not in unpadded
    starts = unpadded["cu_seqlens"]
    assert starts.dtype == torch.int32
    for row, (start, end) in enumerate(pairwise(starts)):
        length = int(end - start)
        assert length == padded["attention_mask"][row].sum()
        for name in ("input_ids", "token_type_ids"):
            torch.testing.assert_close(unpadded[name][0, start:end], padded[name][row, :length], rtol=0, atol=0)
        assert unpadded["position_ids"][0, start:end].tolist() == list(range(length))
    assert int(starts[-1]) == unpadded["input_ids"].shape[1]
    for name in ("labels", "classes", "next_sentence_label"):
        torch.testing.assert_close(unpadded[name], padded[name], rtol=0, atol=0)
    seen = [batch["input_ids"].flatten()[batch["masked_positions"]] for batch in (padded, unpadded)]
    torch.testing.assert_close(*seen, rtol=0, atol=0)


@pytest.mark.parametrize("grouping", ["token", "sequence", "copies"])
def test_a_sequence_without_a_word_of_the_nine_classes_has_no_masked_piece(
    tokenizer: BertTokenizer, grouping: str
) -> None:
    outside, verbs = [(OUTSIDE, 2)] * 5, [(VERB, 1)] * 10
    batch = Masking(tokenizer, grouping=grouping)(make_pairs([(outside, outside), (verbs, verbs)], length=32))
    rows = masked_of_rows(batch)
    assert not any(rows[0::2])
    assert any(rows[1::2])
    only_outside = Masking(tokenizer, grouping=grouping)(make_pairs([(outside, outside)], length=32))
    assert len(only_outside["masked_positions"]) == 0


def test_a_word_longer_than_the_maximum_per_sequence_is_never_masked(tokenizer: BertTokenizer) -> None:
    longest = math.ceil(0.15 * 32)
    pairs = make_pairs([([(NOUN, longest)], [(VERB, longest + 1)])] * 50, length=32)
    batch = Masking(tokenizer, fixed_size=True)(pairs)
    assert all(masked == set(range(1, 1 + longest)) for masked in masked_of_rows(batch))


def test_the_arrays_of_the_corpus_are_not_changed(tokenizer: BertTokenizer) -> None:
    pairs = random_pairs(10)
    before = PairBatch(*(column.copy() for column in pairs))
    for column in pairs:
        column.setflags(write=False)
    for grouping in ("token", "sequence", "copies"):
        Masking(tokenizer, grouping=grouping, stratified=True)(pairs)
    for column, original in zip(pairs, before, strict=True):
        np.testing.assert_array_equal(column, original)


@pytest.mark.parametrize("mask_fraction", [0, 1.5])
def test_a_mask_fraction_out_of_range_is_refused(tokenizer: BertTokenizer, mask_fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"^Expected a mask_fraction above 0 and up to 1, got {mask_fraction}\.$"):
        Masking(tokenizer, mask_fraction=mask_fraction)
