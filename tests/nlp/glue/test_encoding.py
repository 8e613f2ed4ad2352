from typing import Any

import numpy as np
import pytest
import torch

from taskrobust.nlp.glue.encoding import drawn, encode
from taskrobust.nlp.glue.files import Examples

FIRST = ["the old cat slept", "she ran", "the dogs run fast on the mat ! they saw her book", ""]
SECOND = ["a cat slept", "they run quietly and the writer sold 25 books to his friends", "no", "well ."]
LABELS = np.array([2, 0, 1, 1])


@pytest.mark.parametrize("texts", [(FIRST,), (FIRST, SECOND)], ids=["sentences", "pairs"])
def test_batches_are_those_of_the_tokenizer(texts: tuple[list[str], ...], small_wordpiece: Any) -> None:
    samples = encode(Examples(texts, LABELS, []), small_wordpiece, max_length=24)
    indices = [2, 0, 3]
    batch = samples.collate(samples.__getitems__([(index, 5) for index in indices]))
    peer = small_wordpiece(
        *([column[index] for index in indices] for column in texts),
        truncation=True,
        max_length=24,
        padding=True,
        pad_to_multiple_of=8,
        return_tensors="pt",
    )
    assert torch.equal(batch.pop("labels"), torch.tensor([1, 2, 1]))
    assert batch.keys() == dict(peer).keys()
    assert all(torch.equal(batch[name], peer[name]) for name in batch)


def test_sample_is_that_of_the_tokenizer(small_wordpiece: Any) -> None:
    samples = encode(Examples((FIRST, SECOND), LABELS, []), small_wordpiece, max_length=24)
    peer = small_wordpiece(FIRST[1], SECOND[1], truncation=True, max_length=24)
    sample = samples[1]
    assert sample.pop("labels") == 0
    assert sample == {name: peer[name] for name in ("input_ids", "token_type_ids")}
    assert len(list(samples)) == len(samples) == 4
    with pytest.raises(IndexError, match="Expected an index from 0 to 3, got -1"):
        samples[-1]
    assert repr(samples) == f"EncodedExamples(4 examples, {samples.lengths.sum()} pieces)"


def test_unlabeled_examples_have_no_labels(small_wordpiece: Any) -> None:
    samples = encode(Examples((FIRST,), None, ["7", "8", "9", "10"]), small_wordpiece, max_length=24)
    assert "labels" not in samples[0]
    assert set(samples.collate(np.array([0, 1]))) == {"input_ids", "token_type_ids", "attention_mask"}


def test_long_pairs_are_truncated(small_wordpiece: Any) -> None:
    samples = encode(Examples((FIRST, SECOND), LABELS, []), small_wordpiece, max_length=12)
    assert samples.lengths.max() == 12


def test_models_without_segments_get_no_token_types(small_wordpiece: Any) -> None:
    small_wordpiece.model_input_names = ["input_ids", "attention_mask"]
    batch = encode(Examples((FIRST,), LABELS, []), small_wordpiece, 20).collate(np.array([0]))
    small_wordpiece.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_many_examples_are_encoded_in_parts(small_wordpiece: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode(Examples((FIRST, SECOND), LABELS, []), small_wordpiece, 20)
    monkeypatch.setattr("taskrobust.nlp.glue.encoding._AT_ONCE", 3)
    parts = encode(Examples((FIRST, SECOND), LABELS, []), small_wordpiece, 20)
    assert parts.input_ids.tolist() == whole.input_ids.tolist()
    assert parts.lengths.tolist() == whole.lengths.tolist()


def test_smaller_draw_is_contained_in_a_larger_one() -> None:
    examples = Examples(([str(number) for number in range(100)],), np.arange(100), [])
    few, more, everything = (drawn(examples, number).texts[0] for number in (10, 20, 1000))
    assert few == more[:10] != [str(number) for number in range(10)]
    assert sorted(everything) == sorted(examples.texts[0])
    labels = drawn(examples, 10).labels
    assert labels is not None
    assert [str(label) for label in labels] == few
