import os
import random
from pathlib import Path
from typing import Any

import nltk
import pyarrow.parquet as pq
import pytest

from benchmarks.straightforward_annotation import annotate_sentence
from taskrobust.nlp.corpus.store import WORD_START
from taskrobust.nlp.corpus.wordpiece import train_wordpiece
from taskrobust.nlp.tagging import annotator as module
from taskrobust.nlp.tagging.annotator import Annotator, annotate_tagged, load_sentence_splitter
from taskrobust.nlp.tagging.tagger import load_nltk_tagger
from taskrobust.nlp.tagging.tagset import class_of_tag

needs_books = pytest.mark.skipif(
    not {"NLTK_DATA", "TASKROBUST_DATA"} <= os.environ.keys(),
    reason="NLTK_DATA and TASKROBUST_DATA do not name folders with NLTK's tagger and the books",
)


def whole(paragraph: str) -> list[str]:
    return [paragraph]


@pytest.fixture
def annotator(small_tagger: Any, small_wordpiece: Any) -> Annotator:
    return Annotator(small_tagger, small_wordpiece, whole)


class SimpleTagger:
    """A tagger with the given tags, in the form that FastTagger reads."""

    def __init__(self, tags: dict[str, str]):
        self.tagdict = tags
        self.classes = {*tags.values(), "NN"}
        self.model = nltk.tag.perceptron.AveragedPerceptron({"bias": {"NN": 1.0}})
        self.normalize = str.lower


def noise(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    characters = [
        *"abcXYZ0123 .,:;?!'\"`()[]{}<>-\u2013—…«»“”\u2018\u2019$%&@#*/\\_éßİı中\u0301\u200b\u00a0€½",
        *" " * 25,
    ]
    words = (
        "the Cat 's n't can not cannot gonna wanna d'ye 'tis more'n '' `` ... -- U.S. Mr. [SEP] [MASK] 'll ) .\" .' \""
    )
    return ["".join(rng.choices(characters + words.split() * 3, k=rng.randint(1, 30))) for _ in range(count)]


def test_ids_and_flags_are_those_of_the_straightforward_pipeline(
    annotator: Annotator, small_tagger: Any, small_wordpiece: Any
) -> None:
    for sentence in noise(800):
        expected_ids, expected_flags = annotate_sentence(sentence, small_tagger, small_wordpiece)
        ids, flags, _, _ = annotator([sentence])
        assert ids.tolist() == expected_ids, sentence
        assert flags.tolist() == expected_flags, sentence


def test_a_piece_has_the_class_of_the_word_that_covers_its_first_character() -> None:
    wordpiece = train_wordpiece(["i cannot go ."] * 10, vocab_size=60)
    tagger = SimpleTagger({"I": "PRP", "can": "MD", "not": "RB", "go": "VB", ".": "."})
    ids, flags, sentences, words = Annotator(tagger, wordpiece, whole)(["I cannot go."])
    assert wordpiece.convert_ids_to_tokens(ids.tolist()) == ["i", "cannot", "go", "."]
    classes = [class_of_tag(tag) for tag in ("PRP", "MD", "VB", ".")]
    assert flags.tolist() == [WORD_START | one for one in classes]
    assert (sentences, words) == ([[4]], 5)


def test_the_pieces_after_the_first_of_a_word_do_not_start_it() -> None:
    wordpiece = train_wordpiece(["a b c"], vocab_size=20)
    _, flags, _, _ = Annotator(SimpleTagger({}), wordpiece, whole)(["abc c, ba"])
    starts = [bool(flag & WORD_START) for flag in flags]
    assert starts == [True, False, False, True, True, True, False]


def test_a_special_token_in_a_text_is_plain_text(annotator: Annotator, small_wordpiece: Any) -> None:
    ids = annotator(["The cat [SEP] [MASK] [CLS] slept."]).ids
    special = {small_wordpiece.sep_token_id, small_wordpiece.mask_token_id, small_wordpiece.cls_token_id}
    assert special.isdisjoint(ids.tolist())


def test_documents_and_sentences_without_a_piece_are_left_out(annotator: Annotator) -> None:
    annotated = annotator(["The cat.\n\u200b\nA run.", "\u200b", "", "Dogs slept."])
    assert [len(document) for document in annotated.sentences] == [2, 1]
    assert sum(map(sum, annotated.sentences)) == len(annotated.ids) == len(annotated.flags)


def test_forgetting_chunks_does_not_change_the_result(
    annotator: Annotator, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = annotator(documents)
    monkeypatch.setattr(module, "_MOST_CHUNKS", 0)
    annotator(documents[5:7])
    after = annotator(documents)
    assert (after.ids == before.ids).all()
    assert (after.flags == before.flags).all()
    assert after.sentences == before.sentences


def test_tagged_documents_give_the_pieces_and_classes_of_their_words(small_wordpiece: Any) -> None:
    documents = [[[("The", "DT"), ("cats", "NNS"), (".", ".")], [("Run", "VB")]], [[("Run", "NN"), ("\u200b", "SYM")]]]
    annotated = annotate_tagged(documents, small_wordpiece)
    ids, flags = [], []
    for word, tag in (pair for document in documents for sentence in document for pair in sentence):
        pieces = small_wordpiece(word, add_special_tokens=False)["input_ids"]
        ids += pieces
        flags += [class_of_tag(tag) | WORD_START] * bool(pieces) + [class_of_tag(tag)] * (len(pieces) - 1)
    assert annotated.ids.tolist() == ids
    assert annotated.flags.tolist() == flags
    assert annotated.words == 6
    assert sum(map(sum, annotated.sentences)) == len(ids)
    assert [len(document) for document in annotated.sentences] == [2, 1]


@needs_books
@pytest.mark.realdata
def test_books_are_annotated_as_by_the_straightforward_pipeline(tmp_path: Path) -> None:
    books = pq.read_table(Path(os.environ["TASKROBUST_DATA"]) / "text/books-validation.parquet")["text"].to_pylist()
    books = books[::60]
    wordpiece = train_wordpiece(books, vocab_size=3000)
    tagger = load_nltk_tagger()
    punkt = nltk.tokenize.PunktTokenizer("english")
    ids, flags, sentences = [], [], []
    for book in books:
        sentences.append([])
        for sentence in (sentence for paragraph in book.splitlines() for sentence in punkt.tokenize(paragraph)):
            sentence_ids, sentence_flags = annotate_sentence(sentence, tagger, wordpiece)
            ids += sentence_ids
            flags += sentence_flags
            sentences[-1].append(len(sentence_ids))
    annotated = Annotator(tagger, wordpiece, load_sentence_splitter())(books)
    assert annotated.ids.tolist() == ids
    assert annotated.flags.tolist() == flags
    assert annotated.sentences == sentences
