from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from taskrobust._io.locks import made_by_one
from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import MAY_CHANGE
from taskrobust.nlp.corpus.annotate import annotate, write_tagged_corpus
from taskrobust.nlp.corpus.sources import Source
from taskrobust.nlp.corpus.store import MANIFEST, TOKENIZER
from taskrobust.nlp.corpus.wordpiece import load_wordpiece, train_wordpiece
from taskrobust.synthetic.text.grammar import detokenize, generate_documents

GRAMMAR = "grammar"
"""The source that is generated instead of read."""

_HELD_OUT_SEED = 1_000_003


@dataclass(kw_only=True)
class CorpusConfig:
    """The annotated text that is trained on and evaluated on, and what it is made from where it is not there yet.

    Args:
        train: Folder of the training corpus.
        held_out: Folder of the held-out corpus.
        train_source: Text to annotate into ``train`` unless that is done: a file, a folder, the name of a data set on
            the hub (see ``taskrobust annotate``), or ``grammar`` for generated text. Environment variables are filled
            in. None expects the corpus to be there.
        held_out_source: The same for ``held_out``. It is encoded with the vocabulary of ``train``.
        tokenizer: Vocabulary of ``train``: a file, a folder or a name on the hub. None trains one.
        vocab_size: Pieces of a vocabulary that is trained.
        sequence_length: Tokens of a pair of segments.
        documents: Documents that ``grammar`` generates for ``train``.
        held_out_documents: Documents that ``grammar`` generates for ``held_out``.
        num_proc: Processes that annotate.
    """

    train: Path
    held_out: Path
    train_source: Annotated[Source | None, MAY_CHANGE] = None  # of a corpus that is there
    held_out_source: Annotated[Source | None, MAY_CHANGE] = None
    tokenizer: str | None = None
    vocab_size: int = 30_522
    sequence_length: int = 128
    documents: int = 12_000
    held_out_documents: int = 600
    num_proc: Annotated[int, MAY_CHANGE] = 1


def prepare(config: CorpusConfig) -> None:
    """Make the corpora that are not there yet; of several processes one makes them and the others wait.

    Called before the processes form a group, whose members do not wait for hours.

    Raises:
        ValueError: If a source cannot be read, or a folder holds a corpus made from something else.
    """
    sources = {config.train: config.train_source, config.held_out: config.held_out_source}
    folders = [folder for folder, source in sources.items() if source is not None]
    if folders:
        made_by_one(config.train, lambda: _prepare(config), lambda: all(map(MANIFEST.is_complete, folders)))


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
    if MANIFEST.is_complete(output):  # on another machine, perhaps, without the source and without NLTK's data
        there = MANIFEST.read(output)["sequence_length"]
        if there != config.sequence_length:
            raise ValueError(f"Expected a corpus of sequence_length {config.sequence_length} in {output}, got {there}.")
        return
    annotate(
        _filled_in(source),
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


def _filled_in(source: Source) -> Source:
    return expand_variables(source) if isinstance(source, str) else [expand_variables(one) for one in source]
