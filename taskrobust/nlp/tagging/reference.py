"""What annotation means: the straight pipeline of NLTK and BertTokenizer, sentence by sentence.

:class:`taskrobust.nlp.tagging.annotator.Annotator` gives the same, faster; tests and benchmarks compare the two.
"""

from typing import Any

import nltk

from taskrobust.nlp.corpus.store import WORD_START
from taskrobust.nlp.tagging.tagset import class_of_tag


def annotate_sentence(sentence: str, tagger: Any, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Splits a sentence into WordPieces, each with the class of the word that covers its first character.

    Args:
        sentence: Text of one sentence; any run of whitespace counts as one space.
        tagger: An NLTK tagger for words of the Penn Treebank.
        tokenizer: A ``transformers.BertTokenizer``.

    Returns:
        The ids of the pieces, and their flags: the class, plus ``WORD_START`` on the first piece of a word.
    """
    sentence = " ".join(sentence.split())
    splitter = nltk.tokenize.NLTKWordTokenizer()
    tags = [tag for _, tag in tagger.tag(splitter.tokenize(sentence))]
    ends = [end for _, end in splitter.span_tokenize(sentence)]
    pieces = tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
    flags = []
    word = previous = -1
    for start, _ in pieces["offset_mapping"]:
        word = max(word, 0)
        while start >= ends[word]:
            word += 1
        flags.append(class_of_tag(tags[word]) | (WORD_START if word > previous else 0))
        previous = word
    return pieces["input_ids"], flags
