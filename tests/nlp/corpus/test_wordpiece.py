from pathlib import Path
from typing import Any

import pytest

from taskrobust.nlp.corpus import wordpiece as module
from taskrobust.nlp.corpus.wordpiece import SPECIAL_TOKENS, load_wordpiece, train_wordpiece


def test_training_twice_gives_the_same_vocabulary() -> None:
    # A hundred merges among words of equal frequency, whose ties the trainer by itself breaks by a random hash.
    text = [f"{a}{b}{c}{d}" for a in "abc" for b in "defg" for c in "hij" for d in "klmn"]
    vocabularies = [train_wordpiece(text, vocab_size=150).get_vocab() for _ in range(4)]
    assert len(vocabularies[0]) == 150
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)


def test_the_special_tokens_come_first(small_wordpiece: Any) -> None:
    assert small_wordpiece.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    assert small_wordpiece.pad_token_id == 0


def test_the_vocabulary_is_lower_case_and_covers_every_character_at_every_place(small_wordpiece: Any) -> None:
    pieces = small_wordpiece.tokenize("The CAT zyx xyz")
    assert "[UNK]" not in pieces
    assert "".join(pieces).replace("##", "") == "thecatzyxxyz"


def test_a_punctuation_mark_continues_no_word() -> None:
    assert {"##!", "##."}.isdisjoint(train_wordpiece(["a ! . b1"], vocab_size=30).get_vocab())


def test_rare_characters_become_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_ALPHABET", 2)
    tokenizer = train_wordpiece(["aa bb c"], vocab_size=20)
    assert tokenizer.tokenize("a b c") == ["a", "b", "[UNK]"]


@pytest.mark.parametrize("size", [5, 65_536])
def test_a_vocabulary_of_impossible_size_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=rf"between 6 and 65535 \(ids are stored as uint16\), got {size}"):
        train_wordpiece(["a b"], vocab_size=size)


def test_a_saved_tokenizer_and_its_vocabulary_file_load_equally(small_wordpiece: Any, tmp_path: Path) -> None:
    small_wordpiece.save_pretrained(tmp_path / "folder")
    vocabulary = small_wordpiece.get_vocab()
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8")
    text = "The old cat slept, cannot see!"
    for source in (tmp_path / "folder", file):
        loaded = load_wordpiece(source)
        assert loaded.get_vocab() == vocabulary
        assert loaded(text) == small_wordpiece(text)


def test_a_vocabulary_without_special_tokens_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("[PAD]\n[UNK]\n[CLS]\na\nb\n")
    with pytest.raises(ValueError, match=r"vocab\.txt without \[SEP\] \[MASK\]"):
        load_wordpiece(file)


def test_a_vocabulary_that_does_not_fit_the_corpus_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join([*SPECIAL_TOKENS, *(f"w{number}" for number in range(65_531))]))
    with pytest.raises(ValueError, match=r"at most 65535 pieces .* got 65536"):
        load_wordpiece(file)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds neither tokenizer\.json nor vocab\.txt"):
        load_wordpiece(tmp_path)
