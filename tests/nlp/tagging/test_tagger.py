import os
import random
from typing import Any

import nltk
import pytest

from taskrobust.nlp.tagging.tagger import FastTagger, load_nltk_tagger, require_nltk_data

needs_nltk_data = pytest.mark.skipif(
    "NLTK_DATA" not in os.environ, reason="NLTK_DATA does not name a folder with NLTK's tagger"
)


def noise(sentences: int, vocabulary: list[str], seed: int = 0) -> list[list[str]]:
    """Sentences of known words, their variants in case and affix, numbers and random characters."""
    rng = random.Random(seed)
    characters = "abcxyzABC019-'.,é中"

    def word() -> str:
        known = rng.choice(vocabulary)
        return rng.choice(
            [
                known,
                known.upper(),
                known.capitalize(),
                known + rng.choice(["s", "ed", "-", "ly"]),
                "-" + known,
                str(rng.randint(0, 3000)),
                "".join(rng.choices(characters, k=rng.randint(1, 6))),
            ]
        )

    return [[word() for _ in range(rng.randint(0, 25))] for _ in range(sentences)]


def test_tags_are_identical_to_nltk_on_noise(small_tagger: Any) -> None:
    vocabulary = [feature.rsplit(" ", 1)[1] for feature in small_tagger.model.weights if feature.startswith("i word ")]
    sentences = noise(1000, vocabulary)
    assert FastTagger(small_tagger).tag_sents(sentences) == small_tagger.tag_sents(sentences)


def test_ties_go_to_the_alphabetically_last_tag_as_in_nltk() -> None:
    tagger = nltk.tag.PerceptronTagger(load=False)
    tagger.classes = tagger.model.classes = {"NN", "VB", "DT"}
    tagger.model.weights = {"bias": {"NN": 1.0, "VB": 1.0}}
    assert tagger.tag(["word"]) == [("word", "VB")]
    assert FastTagger(tagger).tag(["word"]) == [("word", "VB")]


def test_a_word_spelled_like_a_boundary_is_a_word(small_tagger: Any) -> None:
    words = ["-START-", "the", "-END-", "-START2-", "cat", "-END2-", "slept"]
    assert FastTagger(small_tagger).tag(words) == small_tagger.tag(words)


def test_a_sentence_without_words_has_no_tags(small_tagger: Any) -> None:
    assert FastTagger(small_tagger).tag([]) == []
    assert FastTagger(small_tagger).tag_sents([[], ["cat"], []])[0::2] == [[], []]


def test_forgetting_the_words_leaves_the_tags_as_they_were(small_tagger: Any) -> None:
    tagger = FastTagger(small_tagger)
    sentences = [["The", "dogs", "slept"], ["A", "run"]]
    before = tagger.tag_sents(sentences[::-1])
    tagger.forget()
    assert tagger.tag_sents(sentences)[::-1] == before


def test_missing_data_of_nltk_is_one_message_with_both_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(ValueError, match="averaged_perceptron_tagger_eng and punkt_tab, not found") as raised:
        load_nltk_tagger()
    assert "python -m nltk.downloader averaged_perceptron_tagger_eng punkt_tab" in str(raised.value)
    assert "NLTK_DATA" in str(raised.value)


@needs_nltk_data
@pytest.mark.realdata
def test_tags_are_identical_to_pos_tag_on_brown_and_on_noise() -> None:
    require_nltk_data()
    brown = [list(sentence) for sentence in nltk.corpus.brown.sents()[:3000]]
    vocabulary = sorted({word for sentence in brown for word in sentence})
    sentences = brown + noise(1000, vocabulary)
    assert FastTagger(load_nltk_tagger()).tag_sents(sentences) == nltk.pos_tag_sents(sentences)


@needs_nltk_data
@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["brown", "conll2000", "treebank", "nps_chat"])
def test_tags_are_identical_to_pos_tag_on_a_whole_corpus(corpus: str) -> None:
    reader = getattr(nltk.corpus, corpus)
    sentences = [list(sentence) for sentence in (reader.posts() if corpus == "nps_chat" else reader.sents())]
    assert FastTagger(load_nltk_tagger()).tag_sents(sentences) == nltk.pos_tag_sents(sentences)
