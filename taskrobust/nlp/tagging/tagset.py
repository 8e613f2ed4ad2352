"""The nine part-of-speech classes of PoS-BERT, defined by Penn Treebank tags."""

from typing import Final

CLASSES: Final = (
    "verb",
    "noun",
    "adjective",
    "determiner",
    "adverb",
    "pronoun",
    "preposition",
    "conjunction",
    "interjection",
)
"""The nine classes in the order of Wang et al. (2023), section 4.1.1. A class id is an index into this tuple."""

OUTSIDE: Final = len(CLASSES)
"""The class id of words in none of the nine classes: numbers, particles, symbols, punctuation."""

_TAGS_BY_CLASS: Final = {
    "verb": "VB VBD VBG VBN VBP VBZ MD",
    "noun": "NN NNS NNP NNPS",
    "adjective": "JJ JJR JJS",
    "determiner": "DT PDT WDT",
    "adverb": "RB RBR RBS WRB",
    "pronoun": "PRP PRP$ WP WP$ EX",
    "preposition": "IN TO",
    "conjunction": "CC",
    "interjection": "UH",
}
_CLASS_OF_TAG: Final = {tag: CLASSES.index(name) for name, tags in _TAGS_BY_CLASS.items() for tag in tags.split()}


def class_of_tag(tag: str) -> int:
    """The class id of a Penn Treebank tag, or ``OUTSIDE``.

    >>> CLASSES[class_of_tag("VBD")], class_of_tag("CD") == OUTSIDE
    ('verb', True)
    """
    return _CLASS_OF_TAG.get(tag, OUTSIDE)
