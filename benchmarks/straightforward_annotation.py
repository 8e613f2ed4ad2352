"""The straightforward annotation pipeline of NLTK and BertTokenizer, sentence by sentence.

It defines the result of the faster :class:`taskrobust.nlp.tagging.annotator.Annotator`, which tests compare with it.
"""

from typing import Any

import nltk

from taskrobust.nlp.corpus.store import WORD_START
from taskrobust.nlp.tagging.tagset import class_of_tag


def annotate_sentence(sentence: str, tagger: Any, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Split a sentence into WordPieces, each with the class of the word that covers its first character.

    Args:
        sentence: Text of one sentence. Runs of whitespace count as one space.
        tagger: An NLTK tagger for words of the Penn Treebank.
        tokenizer: A ``transformers.BertTokenizer``.

    Returns:
        Ids and flags of the pieces. A flag is the class, plus ``WORD_START`` on the first piece of a word.
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
