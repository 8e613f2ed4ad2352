"""NLTK's part-of-speech tagger, and a vectorized one with identical tags."""

from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NLTK_DATA: Final = {
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng/",
    "punkt_tab": "tokenizers/punkt_tab/english/",
}
"""The NLTK packages that annotation reads, and where NLTK looks for them."""

BOUNDARY: Final = (0, 1, 2, 3)
"""The word ids before, between and after sentences: two ends, then two starts (see FastTagger.tag_ids)."""

_END, _, _, _START2 = BOUNDARY
_SENTINELS: Final = ("-END-", "-END2-", "-START-", "-START2-")
_WORD: Final = np.dtype(
    [
        (name, np.int32)
        for name in (
            "tag",  # if the word has the same tag everywhere, else -1; the following are rows of the weights
            "suffix",
            "prefix",
            "word",
            "after_tag",  # row in the table of features of the word and the tag before it
            "as_left",
            "as_left_suffix",
            "as_second_left",
            "as_right",
            "as_right_suffix",
            "as_second_right",
        )
    ]
)
_SENTENCES_IN_LOCKSTEP: Final = 4096  # whose scores (4096 x 45 doubles) fit into the L2 cache


def require_nltk_data() -> None:
    """Check that NLTK finds its tagger and its sentence splitter.

    Raises:
        ValueError: If one is missing. The message names the two solutions.
    """
    missing = [name for name, path in NLTK_DATA.items() if not _nltk_finds(path)]
    if missing:
        import nltk

        raise ValueError(
            f"Expected NLTK's data {' and '.join(missing)}, not found in {nltk.data.path}. Either run "
            f"`python -m nltk.downloader {' '.join(NLTK_DATA)}`, or set the environment variable NLTK_DATA to a folder "
            "with the subfolders taggers/ and tokenizers/."
        )


def _nltk_finds(path: str) -> bool:
    import nltk

    try:
        nltk.data.find(path)
    except LookupError:
        return False
    return True


def load_nltk_tagger() -> Any:
    """Load the tagger behind ``nltk.pos_tag``: ``PerceptronTagger`` with NLTK's English weights.

    Raises:
        ValueError: If NLTK's data is missing.
    """
    import nltk

    require_nltk_data()
    return nltk.tag.PerceptronTagger()


class FastTagger:
    r"""Tags exactly as ``nltk.tag.PerceptronTagger.tag``, thousands of sentences in lockstep.

    .. math:: t_i = \operatorname{argmax}_t \sum_{f \in F(w_{i-2}, \dots, w_{i+2}, t_{i-1}, t_{i-2})} \theta_{f, t}

    The tags are identical, not just close. The sum runs in double precision over NLTK's fourteen features in NLTK's
    order (a feature that NLTK skips adds an exact zero), and ties go to the alphabetically last tag.

    Each distinct word is looked up once, for the rows of the weights that it contributes to itself and its neighbors,
    and then represented by a number. The table of words only grows. Call :meth:`forget` to bound the memory.

    Args:
        tagger: A trained ``nltk.tag.PerceptronTagger``.

    Attributes:
        tags: The tags in alphabetical order. A tag id is an index into this tuple.

    References:
        Collins, Discriminative Training Methods for Hidden Markov Models, EMNLP 2002;
        Honnibal, A Good Part-of-Speech Tagger in about 200 Lines of Python, 2013.
    """

    def __init__(self, tagger: Any):
        self.tags: tuple[str, ...] = tuple(sorted(tagger.classes))
        self._normalize = tagger.normalize
        weights: dict[str, dict[str, float]] = tagger.model.weights
        tag_ids = {tag: index for index, tag in enumerate(self.tags)}
        self._known_tags: dict[str, int] = {word: tag_ids[tag] for word, tag in tagger.tagdict.items()}

        self._feature_ids = {feature: row for row, feature in enumerate(weights, start=1)}  # row 0: an unseen feature
        self._weights = np.zeros((len(weights) + 1, len(self.tags)))
        for feature, row in self._feature_ids.items():
            for tag, weight in weights[feature].items():
                self._weights[row, tag_ids[tag]] = weight

        # Before the first word of a sentence, the tags are the two start symbols.
        history = (*self.tags, "-START-", "-START2-")
        self._start, self._start2 = len(self.tags), len(self.tags) + 1
        self._bias = self._weights[self._row("bias")]
        self._previous_tag = np.array([self._row("i-1 tag", tag) for tag in history])
        self._tag_before = np.array([self._row("i-2 tag", tag) for tag in history])
        self._both_tags = np.array([[self._row("i tag+i-2 tag", a, b) for b in history] for a in history])
        self._words_after_tags, self._previous_tag_and_word = self._tag_word_features(history)
        self.forget()

    def _row(self, *feature: str) -> int:
        return self._feature_ids.get(" ".join(feature), 0)

    def _tag_word_features(self, history: tuple[str, ...]) -> tuple[dict[str, int], NDArray[np.int64]]:
        """The rows of the features "i-1 tag+i word" as a table [words, tags], and each word's index into it."""
        name = "i-1 tag+i word "
        pairs = [feature.removeprefix(name).split(" ", 1) for feature in self._feature_ids if feature.startswith(name)]
        words = {word: index for index, word in enumerate(dict.fromkeys(word for _, word in pairs), start=1)}
        table = np.zeros((len(words) + 1, len(history)), np.int64)
        for tag, word in pairs:
            table[words[word], history.index(tag)] = self._row("i-1 tag+i word", tag, word)
        return words, table

    def forget(self) -> None:
        """Empty the table of words, which invalidates all word ids."""
        self._word_ids: dict[str, int] = {}
        self._word_table = array("i")
        for sentinel in _SENTINELS:
            self._describe(sentinel, sentinel)

    def word_id(self, word: str) -> int:
        """The id of a word for :meth:`tag_ids`."""
        number = self._word_ids.get(word)
        if number is None:
            number = self._word_ids[word] = len(BOUNDARY) + len(self._word_ids)
            self._describe(word, self._normalize(word))
        return number

    def _describe(self, word: str, normalized: str) -> None:
        suffix = normalized[-3:]
        self._word_table.extend(
            (
                self._known_tags.get(word, -1),
                self._row("i suffix", word[-3:]),
                self._row("i pref1", word[:1]),
                self._row("i word", normalized),
                self._words_after_tags.get(normalized, 0),
                self._row("i-1 word", normalized),
                self._row("i-1 suffix", suffix),
                self._row("i-2 word", normalized),
                self._row("i+1 word", normalized),
                self._row("i+1 suffix", suffix),
                self._row("i+2 word", normalized),
            )
        )

    def tag_ids(self, words: NDArray[np.int32]) -> NDArray[np.int16]:
        """Tag concatenated sentences.

        Args:
            words: Word ids, [N]: ``BOUNDARY``, then the words of each sentence, followed by ``BOUNDARY``.

        Returns:
            Tag ids, [N], -1 at the boundaries.
        """
        table = np.frombuffer(self._word_table, _WORD)
        starts = np.flatnonzero(words == _START2)[:-1] + 1
        lengths = np.flatnonzero(words == _END)[1:] - starts
        longest_first = np.argsort(-lengths, kind="stable")
        tags = table["tag"][words].astype(np.int16)
        for first in range(0, len(starts), _SENTENCES_IN_LOCKSTEP):
            block = longest_first[first : first + _SENTENCES_IN_LOCKSTEP]
            self._tag_in_lockstep(words, table, starts[block], lengths[block], tags)
        return tags

    def _tag_in_lockstep(
        self,
        words: NDArray[np.int32],
        table: NDArray[np.void],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        tags: NDArray[np.int16],
    ) -> None:
        """Tags the first words of all sentences, then the second words, and so on. Expects the longest first."""
        previous = np.full(len(starts), self._start)
        before = np.full(len(starts), self._start2)
        active = len(starts)
        for step in range(int(lengths[0])):
            while lengths[active - 1] <= step:
                active -= 1
            at = starts[:active] + step
            new = tags[at].astype(np.int64)
            open_ = np.flatnonzero(new < 0)
            if len(open_):
                scores = self._scores(words, table, at[open_], previous[open_], before[open_])
                new[open_] = len(self.tags) - 1 - scores[:, ::-1].argmax(axis=1)  # ties go to the last tag, as in NLTK
            tags[at] = new
            before[:active] = previous[:active]
            previous[:active] = new

    def _scores(
        self,
        words: NDArray[np.int32],
        table: NDArray[np.void],
        at: NDArray[np.int64],
        previous: NDArray[np.int64],
        before: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Scores, [words, tags]: the sums of the weights of NLTK's features, in NLTK's order."""
        here, left, second_left = words[at], words[at - 1], words[at - 2]
        right, second_right = words[at + 1], words[at + 2]
        scores: NDArray[np.float64] = self._bias + self._weights[table["suffix"][here]]
        for rows in (
            table["prefix"][here],
            self._previous_tag[previous],
            self._tag_before[before],
            self._both_tags[previous, before],
            table["word"][here],
            self._previous_tag_and_word[table["after_tag"][here], previous],
            table["as_left"][left],
            table["as_left_suffix"][left],
            table["as_second_left"][second_left],
            table["as_right"][right],
            table["as_right_suffix"][right],
            table["as_second_right"][second_right],
        ):
            scores += self._weights[rows]
        return scores

    def tag_sents(self, sentences: Sequence[Sequence[str]]) -> list[list[tuple[str, str]]]:
        """Tag sentences of words, like ``PerceptronTagger.tag_sents``."""
        flat = array("i", BOUNDARY)
        for sentence in sentences:
            flat.extend(map(self.word_id, sentence))
            flat.extend(BOUNDARY)
        tags = self.tag_ids(np.frombuffer(flat, np.int32))
        names = iter([self.tags[tag] for tag in tags[tags >= 0]])
        return [[(word, next(names)) for word in sentence] for sentence in sentences]

    def tag(self, words: Sequence[str]) -> list[tuple[str, str]]:
        """Tag the words of one sentence, like ``PerceptronTagger.tag``."""
        return self.tag_sents([words])[0]
