import os
from collections import Counter
from itertools import combinations, islice, pairwise

import pytest
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize import NLTKWordTokenizer

from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE, class_of_tag
from taskrobust.synthetic.text import lexicon
from taskrobust.synthetic.text.grammar import Document, Sentence, detokenize, generate_documents

DOCUMENTS = list(generate_documents(400, seed=0))
SENTENCES = [sentence for document in DOCUMENTS for sentence in document]
TOKENS = [token for sentence in SENTENCES for token in sentence]


def content_words(topic: lexicon.Topic) -> set[str]:
    nouns = {word for noun in (*topic.people, *topic.things, *topic.places) for word, _ in noun}
    return nouns | {word for verb in topic.verbs for word, _ in verb} | {word for word, _ in topic.adjectives}


TOPIC_OF_WORD = {word: name for name, topic in lexicon.TOPICS.items() for word in content_words(topic)}


def topics_of(sentence: Sentence) -> set[str]:
    return {TOPIC_OF_WORD[word.lower()] for word, _ in sentence if word.lower() in TOPIC_OF_WORD}


def test_a_document_depends_on_the_seed_and_its_index_only() -> None:
    assert list(generate_documents(20, seed=0)) == DOCUMENTS[:20]
    assert list(islice(generate_documents(10**9, seed=0), 5)) == DOCUMENTS[:5]


def test_streams_of_two_seeds_share_no_document() -> None:
    texts = set(map(detokenize, DOCUMENTS))
    assert len(texts) == len(DOCUMENTS)
    assert texts.isdisjoint(map(detokenize, generate_documents(400, seed=1)))


def test_all_nine_classes_occur_and_interjections_are_the_rarest() -> None:
    counts = Counter(class_of_tag(tag) for _, tag in TOKENS)
    shares = {name: counts[index] / len(TOKENS) for index, name in enumerate(CLASSES)}
    assert min(shares, key=shares.__getitem__) == "interjection"
    assert 0.005 < shares["interjection"] < 0.02
    assert min(share for name, share in shares.items() if name != "interjection") > 0.02
    assert 0.05 < counts[OUTSIDE] / len(TOKENS) < 0.2


def test_no_topic_shares_a_content_word_with_another() -> None:
    assert len(lexicon.TOPICS) >= 6
    for one, other in combinations(lexicon.TOPICS.values(), 2):
        assert content_words(one).isdisjoint(content_words(other))


def test_a_document_has_one_topic_which_most_sentences_show() -> None:
    assert all(len(set().union(*map(topics_of, document))) <= 1 for document in DOCUMENTS)
    assert sum(bool(topics_of(sentence)) for sentence in SENTENCES) > 0.75 * len(SENTENCES)


def test_the_protagonist_is_named_in_the_first_sentence_and_recurs() -> None:
    recurrences = []
    for opening, *others in DOCUMENTS:
        name = next(token for token in opening if token[1] == "NNP")
        recurrences.append(sum(name in sentence for sentence in others))
    assert sum(map(bool, recurrences)) > 0.8 * len(DOCUMENTS)


def test_a_neighboring_sentence_shares_more_words_than_one_of_another_document_of_the_topic() -> None:
    def shared_words(one: Sentence, other: Sentence) -> int:
        open_tags = ("NN", "VB", "JJ")
        words = [{word.lower() for word, tag in sentence if tag.startswith(open_tags)} for sentence in (one, other)]
        return len(words[0] & words[1])

    by_topic: dict[frozenset[str], list[Document]] = {}
    for document in DOCUMENTS:
        by_topic.setdefault(frozenset().union(*map(topics_of, document)), []).append(document)
    within = [shared_words(*pair) for document in DOCUMENTS for pair in pairwise(document)]
    across = [shared_words(one[0], other[1]) for documents in by_topic.values() for one, other in pairwise(documents)]
    assert sum(within) / len(within) > 1.5 * sum(across) / len(across)


@pytest.mark.parametrize(("pronouns", "tag"), [({"he", "she"}, "VBP"), ({"they"}, "VBZ")], ids=["singular", "plural"])
def test_a_pronoun_agrees_with_the_verb_after_it(pronouns: set[str], tag: str) -> None:
    neighbors = [pair for sentence in SENTENCES for pair in pairwise(sentence)]
    followers = Counter(after for (word, _), (_, after) in neighbors if word.lower() in pronouns)
    assert {"VBZ", "VBP"} & set(followers)
    assert followers[tag] == 0


def test_an_article_fits_the_word_after_it() -> None:
    neighbors = [pair for sentence in SENTENCES for pair in pairwise(sentence)]
    articles = [(word.lower(), after[0]) for (word, _), (after, _) in neighbors if word.lower() in ("a", "an")]
    assert {"a", "an"} == {article for article, _ in articles}
    assert all((article == "an") == (initial in "aeiou") for article, initial in articles)


def test_a_document_keeps_its_tense() -> None:
    tense_of_tag = {"VBD": "past", "VBZ": "present", "VBP": "present", "MD": "future"}
    for document in DOCUMENTS:
        assert len({tense_of_tag[tag] for sentence in document for _, tag in sentence if tag in tense_of_tag}) == 1


@pytest.mark.parametrize(
    ("topic", "forms"),
    [
        ("farm", {"feed VB", "feeds VBZ", "fed VBD", "fed VBN", "feeding VBG", "brushes VBZ", "chasing VBG"}),
        ("school", {"libraries NNS", "essays NNS", "studies VBZ", "studied VBD", "wrote VBD", "written VBN"}),
        ("forest", {"wolves NNS", "foxes NNS", "deer NN", "deer NNS", "hiding VBG", "hidden VBN"}),
        ("hospital", {"teeth NNS", "crutches NNS", "examined VBN", "pharmacies NNS"}),
    ],
)
def test_words_are_inflected_as_in_the_dictionary(topic: str, forms: set[str]) -> None:
    words = lexicon.TOPICS[topic]
    inflected = [*words.people, *words.things, *words.places, *words.verbs]
    assert forms <= {f"{word} {tag}" for entry in inflected for word, tag in entry}


def test_adjectives_are_compared_as_in_the_dictionary() -> None:
    adjectives = (*lexicon.EVALUATIONS[True], *lexicon.EVALUATIONS[False])
    degrees = {" ".join(word for word, _ in adjective) for adjective in adjectives}
    assert {"good better best", "happy happier happiest", "nice nicer nicest", "kind kinder kindest"} <= degrees


def test_plain_text_splits_into_the_same_words_again() -> None:
    tokenizer = NLTKWordTokenizer()
    for sentence in SENTENCES:
        assert tokenizer.tokenize(detokenize([sentence])) == [word for word, _ in sentence]


@pytest.mark.realdata
@pytest.mark.skipif("NLTK_DATA" not in os.environ, reason="NLTK_DATA does not name a folder with NLTK's tagger")
def test_the_gold_classes_are_those_of_the_nltk_tagger_for_more_than_nine_words_in_ten() -> None:
    tagger = PerceptronTagger()
    agreements = [
        class_of_tag(gold) == class_of_tag(tag)
        for sentence in SENTENCES
        for (_, gold), (_, tag) in zip(sentence, tagger.tag([word for word, _ in sentence]), strict=True)
    ]
    assert sum(agreements) > 0.93 * len(agreements)
