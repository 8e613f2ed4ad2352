import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from taskrobust.nlp.corpus.annotate import write_tagged_corpus
from taskrobust.nlp.corpus.store import MANIFEST, WORD_START, Corpus
from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE

SEQUENCE_LENGTH = 24


@pytest.fixture
def folder(tmp_path: Path, small_tagger: Any, small_wordpiece: Any, documents: list[str]) -> Path:
    tagged = [[small_tagger.tag(paragraph.split()) for paragraph in document.splitlines()] for document in documents]
    write_tagged_corpus(
        tagged,
        tmp_path / "corpus",
        tokenizer=small_wordpiece,
        sequence_length=SEQUENCE_LENGTH,
        documents_per_shard=10,
    )
    return tmp_path / "corpus"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.arrow")) for row in datasets.Dataset.from_file(str(path))]


def test_a_batch_is_the_rows_of_the_shards_with_special_tokens_and_padding(folder: Path) -> None:
    corpus, rows = Corpus(folder), rows_of(folder)
    assert len(corpus) == len(rows) > 20
    assert len(list(folder.glob("*.arrow"))) == 4
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    batch = corpus.__getitems__([(index, 7) for index in order])
    assert batch.input_ids.shape == batch.flags.shape == (len(rows), SEQUENCE_LENGTH)
    cls, sep, pad = corpus.cls_token_id, corpus.sep_token_id, corpus.pad_token_id
    alone = OUTSIDE | WORD_START
    for place, index in enumerate(order):
        ids, flags, first = rows[index]["ids"], rows[index]["flags"], rows[index]["first"]
        padding = SEQUENCE_LENGTH - len(ids) - 3
        assert batch.keys[place].tolist() == [index, 7]
        assert batch.input_ids[place].tolist() == [cls, *ids[:first], sep, *ids[first:], sep, *[pad] * padding]
        assert batch.flags[place].tolist() == [
            *[alone, *flags[:first], alone],
            *[*flags[first:], alone, *[alone] * padding],
        ]
        assert batch.lengths[place] == len(ids) + 3
        assert batch.first[place] == first
        assert batch.is_random[place] == rows[index]["is_random"]


def test_a_sample_is_readable(folder: Path) -> None:
    corpus, rows = Corpus(folder), rows_of(folder)
    sample = corpus[3]
    ids, first = rows[3]["ids"], rows[3]["first"]
    words = corpus.tokenizer.convert_ids_to_tokens(ids)
    assert sample["tokens"] == ["[CLS]", *words[:first], "[SEP]", *words[first:], "[SEP]"]
    names = [None if flag & 15 == OUTSIDE else CLASSES[flag & 15] for flag in rows[3]["flags"]]
    assert sample["classes"] == [None, *names[:first], None, *names[first:], None]
    assert sample["is_random"] is rows[3]["is_random"]
    assert len(list(corpus)) == len(corpus)
    assert repr(corpus) == f"Corpus('{folder}', {len(corpus)} pairs of up to 24 tokens)"


def test_the_fields_of_a_batch_have_the_types_that_the_masking_expects(folder: Path) -> None:
    batch = Corpus(folder).__getitems__([(0, 0), (1, 0)])
    types = {name: getattr(batch, name).dtype for name in batch._fields}
    assert types == {
        "keys": np.int64,
        "input_ids": np.int64,
        "flags": np.uint8,
        "lengths": np.int64,
        "first": np.int64,
        "is_random": np.bool_,
    }


def test_the_corpus_has_sizes_and_special_tokens(folder: Path, small_wordpiece: Any) -> None:
    corpus, rows = Corpus(folder), rows_of(folder)
    assert corpus.sequence_length == SEQUENCE_LENGTH
    assert corpus.vocab_size == len(small_wordpiece)
    assert corpus.tokenizer.get_vocab() == small_wordpiece.get_vocab()
    assert corpus.mask_token_id == small_wordpiece.mask_token_id
    classes = [flag & 15 for row in rows for flag in row["flags"]]
    assert corpus.pieces_by_class.tolist() == [classes.count(index) for index in range(OUTSIDE + 1)]


def test_a_piece_is_three_bytes(folder: Path) -> None:
    schema = datasets.Dataset.from_file(str(next(folder.glob("*.arrow")))).data.schema
    assert schema.field("ids").type == pa.list_(pa.uint16())
    assert schema.field("flags").type == pa.list_(pa.uint8())


def test_a_pickled_corpus_maps_the_files_again(folder: Path) -> None:
    corpus = Corpus(folder)
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert (copy.__getitems__([(3, 0)]).input_ids == corpus.__getitems__([(3, 0)]).input_ids).all()


@pytest.mark.parametrize("index", [-1, 10**6])
def test_an_index_out_of_range_is_an_error(folder: Path, index: int) -> None:
    with pytest.raises(IndexError, match="Expected indices from 0 to"):
        Corpus(folder).__getitems__([(0, 0), (index, 0)])


def test_a_missing_folder_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder does not exist\. Use `taskrobust annotate"):
        Corpus(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"it holds no corpus\.json\. Use `taskrobust annotate"):
        Corpus(tmp_path)


def test_an_unfinished_corpus_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path, {}, complete=False)
    with pytest.raises(ValueError, match=r"got an unfinished folder\. `taskrobust annotate "):
        Corpus(tmp_path)


def test_a_damaged_manifest_is_an_error(folder: Path) -> None:
    (folder / "corpus.json").write_text('{"format": 1, ')
    with pytest.raises(ValueError, match=r"corpus\.json is damaged"):
        Corpus(folder)
    (folder / "corpus.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"Expected an annotated corpus of format 3, got 99"):
        Corpus(folder)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_shard_is_an_error_that_names_it(folder: Path, kept: float) -> None:
    shard = folder / "shard-00001.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content) if kept < 1 else kept)])
    with pytest.raises(ValueError, match=r"shard-00001\.arrow is missing or truncated"):
        Corpus(folder)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_flipped_bit_is_an_error_that_names_the_shard(folder: Path, place: float) -> None:
    shard = folder / "shard-00001.arrow"
    content = bytearray(shard.read_bytes())
    content[int(place * len(content))] ^= 4
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-00001\.arrow"):
        Corpus(folder)


def test_a_missing_shard_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "shard-00002.arrow").unlink()
    with pytest.raises(ValueError, match=r"shard-00002\.arrow is missing or truncated"):
        Corpus(folder)
