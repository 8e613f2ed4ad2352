"""The command ``annotate``: makes a corpus for pre-training from text, shard by shard."""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.status import Status

from taskrobust._io.atomic import checksum, remove_leftovers, replacing
from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1
from taskrobust.nlp.corpus.pairs import next_sentence_pairs
from taskrobust.nlp.corpus.sources import Source, read_documents, size_in_bytes
from taskrobust.nlp.corpus.store import (
    COUNTS,
    MANIFEST,
    TOKENIZER,
    count_pieces,
    is_complete,
    shard_path,
    summarize_shard,
    write_shard,
)
from taskrobust.nlp.corpus.wordpiece import load_wordpiece, train_wordpiece
from taskrobust.nlp.tagging.annotator import (
    AnnotatedDocuments,
    Annotator,
    TaggedDocument,
    annotate_tagged,
    load_sentence_splitter,
)
from taskrobust.nlp.tagging.tagger import load_nltk_tagger, require_nltk_data

_T = TypeVar("_T")
_SEQUENCE_LENGTHS: Final = range(8, 65_536)  # the corpus stores the length of segment A as uint16


def annotate(
    source: Source,
    output: Path,
    *,
    tokenizer: str | None = None,
    vocab_size: Annotated[int, AT_LEAST_1] = 30_522,
    vocab_documents: Annotated[int, AT_LEAST_1] = 100_000,
    sequence_length: Annotated[int, AT_LEAST_1] = 128,
    text_column: str = "text",
    seed: Annotated[int, AT_LEAST_0] = 0,
    num_proc: Annotated[int, AT_LEAST_1] = 1,
    documents_per_shard: Annotated[int, AT_LEAST_1] = 2048,
) -> None:
    """Annotate text with part-of-speech classes and store it as pairs of segments for PoS-BERT.

    Documents are split into sentences (Punkt) and words (Penn Treebank), tagged (averaged perceptron) and split into
    WordPieces. Each piece is stored with the class of its word. After an interruption, the same command resumes. The
    result does not depend on the number of processes.

    Args:
        source: A text file (documents separated by blank lines, paragraphs by newlines), a .jsonl or .parquet file, a
            folder of such files, a data set on the hub ("name", "name:configuration" or "name:configuration:split"), or
            a list of these.
        output: Folder of the corpus.
        tokenizer: A vocab.txt, a tokenizer folder or a name on the hub. None trains a WordPiece vocabulary.
        vocab_size: Number of pieces of the trained vocabulary.
        vocab_documents: Number of documents, from the start of the source, that the vocabulary is trained on.
        sequence_length: Number of tokens per pair of segments, including three special ones.
        text_column: Field or column of the text in .jsonl files, .parquet files and data sets.
        seed: Seed of the random pairs for next sentence prediction.
        num_proc: Number of processes.
        documents_per_shard: Number of documents per file of the corpus. A process works on one file at a time.

    Raises:
        ValueError: If the source cannot be read, NLTK's data is missing, or ``output`` holds something else.
    """
    _check_sizes(sequence_length, documents_per_shard)
    if num_proc < 1:
        raise ValueError(f"Expected num_proc of at least 1, got {num_proc}.")
    options = {
        "source": source,
        "source_bytes": size_in_bytes(source),
        "text_column": text_column,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size if tokenizer is None else None,
        "vocab_documents": vocab_documents if tokenizer is None else None,
        "sequence_length": sequence_length,
        "seed": seed,
        "documents_per_shard": documents_per_shard,
    }
    progress = _Progress()
    if MANIFEST.is_started(output, options) and is_complete(output):
        progress.say(f"{output} is complete.")
        return
    require_nltk_data()
    _check_source(source, text_column)
    if not (output / TOKENIZER).exists():
        if tokenizer is None:
            progress.say(f"Training a vocabulary of {vocab_size} WordPieces.")
            wordpiece = train_wordpiece(islice(read_documents(source, text_column), vocab_documents), vocab_size)
        else:
            wordpiece = load_wordpiece(tokenizer)
        _start(output, options, wordpiece)
    remove_leftovers(output)
    shards = _missing_shards(read_documents(source, text_column), output, options)
    with progress:
        for shard, words in _run(shards, num_proc, output / TOKENIZER):
            progress.advance(shard, words)
    _finish(output)
    progress.say(f"{output} is complete.")


def write_tagged_corpus(
    documents: Iterable[TaggedDocument],
    output: Path,
    *,
    tokenizer: Any,
    provenance: Mapping[str, object] | None = None,
    sequence_length: int = 128,
    seed: int = 0,
    documents_per_shard: int = 2048,
) -> None:
    """Store documents whose words are tagged already, like :func:`annotate`. NLTK's data is not required.

    Args:
        documents: Documents of sentences of words with their Penn Treebank tags.
        output: Folder of the corpus. Finished shards in it are kept.
        tokenizer: A ``transformers.BertTokenizer``.
        provenance: Origin of the documents and the tokenizer, such as a seed, as JSON values. A folder with a corpus of
            another origin is refused.
        sequence_length: Number of tokens per pair of segments, including three special ones.
        seed: Seed of the random pairs for next sentence prediction.
        documents_per_shard: Number of documents per file of the corpus.

    Raises:
        ValueError: If there are fewer than two documents, or ``output`` holds something else.
    """
    _check_sizes(sequence_length, documents_per_shard)
    options = {
        **(provenance or {}),
        "sequence_length": sequence_length,
        "seed": seed,
        "documents_per_shard": documents_per_shard,
    }
    if MANIFEST.is_started(output, options) and is_complete(output):
        return
    if not (output / TOKENIZER).exists():
        _start(output, options, tokenizer)
    remove_leftovers(output)
    for shard in _missing_shards(documents, output, options):
        _write(shard, annotate_tagged(shard.documents, tokenizer))
    _finish(output)


def _check_sizes(sequence_length: int, documents_per_shard: int) -> None:
    if sequence_length not in _SEQUENCE_LENGTHS:
        raise ValueError(
            f"Expected a sequence_length from {_SEQUENCE_LENGTHS.start} to {_SEQUENCE_LENGTHS.stop - 1}, "
            f"got {sequence_length}."
        )
    if documents_per_shard < 2:
        raise ValueError(
            "Expected documents_per_shard of at least 2, because next sentence prediction draws sentences from another "
            f"document of the shard, got {documents_per_shard}."
        )


def _check_source(source: Source, text_column: str) -> None:
    """Fails before anything is written if the source cannot be read or has too few documents."""
    found = sum(1 for _ in islice(read_documents(source, text_column), 2))
    if found < 2:
        raise ValueError(
            "Expected at least two documents with text, because next sentence prediction draws sentences from another "
            f"one, got {found} in {source}. In plain text, separate documents by a blank line."
        )


def _start(output: Path, options: dict[str, Any], wordpiece: Any) -> None:
    output.mkdir(parents=True, exist_ok=True)
    MANIFEST.write(output, options, complete=False)
    with replacing(output / TOKENIZER) as temporary:
        wordpiece.save_pretrained(temporary)


def _finish(output: Path) -> None:
    options = MANIFEST.read(output)["options"]
    wordpiece = load_wordpiece(output / TOKENIZER)
    paths = sorted(output.glob("shard-*.arrow"))
    summaries = [summarize_shard(path) for path in paths]
    with replacing(output / COUNTS) as temporary, temporary.open("wb") as file:
        np.save(file, count_pieces(paths, len(wordpiece)))
    MANIFEST.write(
        output,
        options,
        complete=True,
        sequence_length=options["sequence_length"],
        seed=options["seed"],
        vocab_size=len(wordpiece),
        special_tokens={
            "pad": wordpiece.pad_token_id,
            "unk": wordpiece.unk_token_id,
            "cls": wordpiece.cls_token_id,
            "sep": wordpiece.sep_token_id,
            "mask": wordpiece.mask_token_id,
        },
        pieces_by_class=[sum(counts) for counts in zip(*(counts for _, counts in summaries), strict=True)],
        shards=[summary for summary, _ in summaries],
        counts_crc32=checksum(output / COUNTS),
    )


def _blocks(documents: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Blocks of documents for the shards. A single remaining document joins the block before it."""
    stream = iter(documents)
    block = list(islice(stream, size))
    while len(following := list(islice(stream, size))) > 1:
        yield block
        block = following
    yield block + following


class _Shard(NamedTuple):
    """A shard to write, and its documents."""

    path: Path
    seed: str
    sequence_length: int
    documents: list[Any]


def _missing_shards(documents: Iterable[Any], output: Path, options: Mapping[str, Any]) -> Iterator[_Shard]:
    for number, block in enumerate(_blocks(documents, options["documents_per_shard"])):
        path = shard_path(output, number)
        if not path.exists():
            yield _Shard(path, f"{options['seed']}/{number}", options["sequence_length"], block)


def _write(shard: _Shard, annotated: AnnotatedDocuments) -> None:
    pairs = next_sentence_pairs(annotated.sentences, shard.sequence_length - 3, Random(shard.seed))
    write_shard(shard.path, annotated.ids, annotated.flags, pairs)


def _annotate(shard: _Shard, annotator: Annotator) -> int:
    """Writes a shard and returns its number of words."""
    annotated = annotator(shard.documents)
    _write(shard, annotated)
    return annotated.words


def _load_annotator(tokenizer: Path) -> Annotator:
    return Annotator(load_nltk_tagger(), load_wordpiece(tokenizer), load_sentence_splitter())


_worker_annotator: Annotator  # of a worker process, which keeps its tables from shard to shard


def _start_worker(tokenizer: Path) -> None:
    global _worker_annotator
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_annotator = _load_annotator(tokenizer)


def _annotate_in_worker(shard: _Shard) -> int:
    return _annotate(shard, _worker_annotator)


def _run(shards: Iterable[_Shard], num_proc: int, tokenizer: Path) -> Iterator[tuple[_Shard, int]]:
    """Writes the shards, in this process or in others. Yields each finished shard with its number of words."""
    if num_proc == 1:
        annotator = _load_annotator(tokenizer)
        for shard in shards:
            yield shard, _annotate(shard, annotator)
        return
    # Each worker is a new interpreter, since a fork would copy the threads of torch and tokenizers in any state.
    with ProcessPoolExecutor(num_proc, get_context("spawn"), _start_worker, (tokenizer,)) as pool:
        running: dict[Future[int], _Shard] = {}
        for shard in shards:
            running[pool.submit(_annotate_in_worker, shard)] = shard
            if len(running) == 2 * num_proc:  # read no further ahead
                yield from _done(running)
        while running:
            yield from _done(running)


def _done(running: dict[Future[int], _Shard]) -> Iterator[tuple[_Shard, int]]:
    """Waits until a shard is finished, and removes the finished ones from the running ones."""
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in finished:
        try:
            yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A worker process died, perhaps for lack of memory. The finished shards are kept. Run the command "
                "again with a smaller --num_proc."
            ) from error


class _Progress:
    """A status line on a terminal, or one line per shard elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status = Status("Loading the tagger", console=self._console)
        self._begin = perf_counter()
        self._documents = self._words = 0

    def __enter__(self) -> None:
        self._begin = perf_counter()
        if self._console.is_terminal:
            self._status.start()

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        self._console.print(text)

    def advance(self, shard: _Shard, words: int) -> None:
        self._documents += len(shard.documents)
        self._words += words
        speed = self._words / (perf_counter() - self._begin)
        report = f"{self._documents:,} documents, {self._words:,} words, {speed:,.0f} words/s"
        if self._console.is_terminal:
            self._status.update(report)
        else:
            self.say(f"{shard.path.name}: {report}")
