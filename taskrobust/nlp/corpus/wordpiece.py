"""The WordPiece vocabulary: trained on the corpus, or loaded."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from taskrobust.nlp.hub import check_on_hub

_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.txt")
SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LARGEST_VOCABULARY: Final = 65_535  # the corpus stores ids as uint16
_LARGEST_ALPHABET: Final = 1000  # the trainer's default; rarer characters become [UNK]


def train_wordpiece(documents: Iterable[str], vocab_size: int = 30_522) -> Any:
    """Train a lower-case WordPiece vocabulary like BERT's, by merging the most frequent pairs of pieces.

    Args:
        documents: The texts to train on.
        vocab_size: Maximum number of pieces, including five special tokens.

    Returns:
        A ``transformers.BertTokenizer``.

    Raises:
        ValueError: If the size is not possible.

    References:
        Wu et al., Google's Neural Machine Translation System, 2016, section 4.1.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizer

    if not len(SPECIAL_TOKENS) < vocab_size <= LARGEST_VOCABULARY:
        raise ValueError(
            f"Expected a vocab_size between {len(SPECIAL_TOKENS) + 1} and {LARGEST_VOCABULARY} "
            f"(ids are stored as uint16), got {vocab_size}."
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    documents = list(documents)
    alphabet = _alphabet(documents, tokenizer)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[*SPECIAL_TOKENS, *_continuations(alphabet, tokenizer)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return BertTokenizer(vocab={piece: vocabulary[piece] for piece in sorted(vocabulary, key=vocabulary.__getitem__)})


def _alphabet(documents: list[str], tokenizer: Any) -> list[str]:
    """The most frequent characters after normalization, in the order of their code points."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(document)
    normalized: Counter[str] = Counter()
    for character, count in counts.items():
        for part in tokenizer.normalizer.normalize_str(character).split():
            normalized.update(dict.fromkeys(part, count))
    return sorted(sorted(normalized, key=lambda character: (-normalized[character], character))[:_LARGEST_ALPHABET])


def _continuations(alphabet: list[str], tokenizer: Any) -> list[str]:
    """The pieces "##x" of the characters that can continue a word.

    The trainer would find them itself, but in the order of a hash table that changes from run to run, and it breaks
    ties between merges by that order. Listing them makes the vocabulary deterministic.
    """

    def continues_a_word(character: str) -> bool:
        return len(tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str("a" + character))) == 1

    return ["##" + character for character in alphabet if continues_a_word(character)]


def load_wordpiece(source: str | Path) -> Any:
    """Load a BERT tokenizer.

    Args:
        source: A ``vocab.txt`` with one piece per line, a folder that ``save_pretrained`` wrote, or a name on the hub.

    Returns:
        A ``transformers.BertTokenizer``.

    Raises:
        ValueError: If there is none, a special token is missing, or there are too many pieces for the corpus.
    """
    try:
        tokenizer = _read(str(source))
    except OSError as error:
        raise ValueError(
            f"Expected a vocab.txt, a folder with a tokenizer or a name on the hub, got {str(source)!r}: {error}"
        ) from error
    except Exception as error:  # transformers and tokenizers raise errors of many kinds on damaged files
        if type(error) is ValueError and str(source) in str(error):
            raise
        raise ValueError(f"Expected the files of a tokenizer in {source}, which are damaged: {error}") from error
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise ValueError(
            f"Expected a vocabulary with {' '.join(SPECIAL_TOKENS)}, got {source} without {' '.join(missing)}."
        )
    if len(vocabulary) == len(SPECIAL_TOKENS):  # transformers makes one up where it finds no files
        raise ValueError(f"Expected a vocabulary with words, got {source} with special tokens only.")
    if len(tokenizer) > LARGEST_VOCABULARY:
        raise ValueError(
            f"Expected a vocabulary of at most {LARGEST_VOCABULARY} pieces (ids are stored as uint16), "
            f"got {len(tokenizer)} in {source}."
        )
    return tokenizer


def _read(source: str) -> Any:
    from transformers import BertTokenizer

    if Path(source).is_file():
        return BertTokenizer(vocab=source)
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _TOKENIZER_FILES):
        raise FileNotFoundError(f"the folder holds neither {' nor '.join(_TOKENIZER_FILES)}.")
    check_on_hub(source)
    return BertTokenizer.from_pretrained(source)
