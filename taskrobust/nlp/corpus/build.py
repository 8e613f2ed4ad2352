from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from taskrobust._io.locks import made_by_one
from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import AT_LEAST_1, MAY_CHANGE, Checked
from taskrobust.nlp.corpus.annotate import annotate, write_tagged_corpus
from taskrobust.nlp.corpus.sources import Source
from taskrobust.nlp.corpus.store import MANIFEST, TOKENIZER, is_complete
from taskrobust.nlp.corpus.wordpiece import load_wordpiece, train_wordpiece
from taskrobust.synthetic.text.grammar import detokenize, generate_documents

GRAMMAR = "grammar"
"""The source of generated text."""

_HELD_OUT_SEED = 1_000_003


@dataclass(kw_only=True)
class CorpusConfig(Checked):
    """The annotated training and held-out text, and the sources to make it from if it does not exist.

    Args:
        train: Folder of the training corpus.
        held_out: Folder of the held-out corpus.
        train_source: Text to annotate into ``train`` if that is not complete: a file, a folder, a data set on the hub
            (see ``taskrobust annotate``), or ``grammar`` for generated text. Environment variables are expanded. None
            requires an existing corpus.
        held_out_source: The same for ``held_out``, which is encoded with the vocabulary of ``train``.
        tokenizer: Vocabulary of ``train``: a file, a folder or a name on the hub. None trains one.
        vocab_size: Number of pieces of a trained vocabulary.
        sequence_length: Number of tokens per pair of segments.
        documents: Number of documents that ``grammar`` generates for ``train``.
        held_out_documents: Number of documents that ``grammar`` generates for ``held_out``.
        num_proc: Number of annotating processes.
    """

    group: ClassVar = "corpus"
    train: Path
    held_out: Path
    train_source: Annotated[Source | None, MAY_CHANGE] = None  # of a corpus that is there
    held_out_source: Annotated[Source | None, MAY_CHANGE] = None
    tokenizer: str | None = None
    vocab_size: Annotated[int, AT_LEAST_1] = 30_522
    sequence_length: Annotated[int, AT_LEAST_1] = 128
    documents: Annotated[int, AT_LEAST_1] = 12_000
    held_out_documents: Annotated[int, AT_LEAST_1] = 600
    num_proc: Annotated[int, MAY_CHANGE, AT_LEAST_1] = 1


def prepare(config: CorpusConfig) -> None:
    """Make the corpora that do not exist yet. Rank 0 makes them while the other ranks wait.

    Call this before the processes form a group, whose collectives time out.

    Raises:
        ValueError: If a source cannot be read, or a folder holds a corpus with other settings.
    """
    sources = {config.train: config.train_source, config.held_out: config.held_out_source}
    folders = [folder for folder, source in sources.items() if source is not None]
    if folders:
        made_by_one(config.train, lambda: _prepare(config), lambda: all(map(is_complete, folders)))


def _prepare(config: CorpusConfig) -> None:
    if config.train_source == GRAMMAR:
        _generate(config, config.train, config.documents, seed=0, tokenizer=config.tokenizer)
    elif config.train_source is not None:
        _annotate(config, config.train_source, config.train, config.tokenizer)
    tokenizer = str(config.train / TOKENIZER)
    if config.held_out_source == GRAMMAR:
        _generate(config, config.held_out, config.held_out_documents, seed=_HELD_OUT_SEED, tokenizer=tokenizer)
    elif config.held_out_source is not None:
        _annotate(config, config.held_out_source, config.held_out, tokenizer)


def _annotate(config: CorpusConfig, source: Source, output: Path, tokenizer: str | None) -> None:
    if is_complete(output):  # perhaps copied from another machine, so the source and NLTK's data may be missing
        there = MANIFEST.read(output)["sequence_length"]
        if there != config.sequence_length:
            raise ValueError(f"Expected a corpus of sequence_length {config.sequence_length} in {output}, got {there}.")
        return
    annotate(
        _expanded(source),
        output,
        tokenizer=tokenizer,
        vocab_size=config.vocab_size,
        sequence_length=config.sequence_length,
        num_proc=config.num_proc,
    )


def _generate(config: CorpusConfig, output: Path, documents: int, seed: int, tokenizer: str | None) -> None:
    trained = output / TOKENIZER
    if tokenizer is not None or trained.exists():
        wordpiece = load_wordpiece(tokenizer or trained)
    else:
        wordpiece = train_wordpiece(map(detokenize, generate_documents(documents, seed)), config.vocab_size)
    write_tagged_corpus(
        generate_documents(documents, seed),
        output,
        tokenizer=wordpiece,
        provenance={"grammar_seed": seed, "documents": documents, "vocab_size": config.vocab_size},
        sequence_length=config.sequence_length,
    )


def _expanded(source: Source) -> Source:
    return expand_variables(source) if isinstance(source, str) else [expand_variables(one) for one in source]
