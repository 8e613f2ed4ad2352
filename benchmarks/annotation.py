"""Times annotation against the straightforward pipeline of NLTK and BertTokenizer.

Prints words per second of wall time, and per second of process time of one core, where a word is a Penn Treebank token.
Both pipelines start from documents in memory and end with ids and classes in memory, and both split sentences with
Punkt. The other one, in ``straightforward_annotation.py``, works sentence by sentence, asks NLTK for the words
and again for their spans, and runs on every tenth document. "Cold" is the first pass of a fresh process with its models
loaded, "warm" the second pass over the same documents.

Run: ``OMP_NUM_THREADS=1 python benchmarks/annotation.py [FILE]``, by default on the books in ``$TASKROBUST_DATA``, or
on generated text where that is unset. NLTK must find its data.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from straightforward_annotation import annotate_sentence

from taskrobust.nlp.corpus.sources import read_documents
from taskrobust.nlp.corpus.wordpiece import load_wordpiece, train_wordpiece
from taskrobust.nlp.tagging.annotator import Annotator, load_sentence_splitter
from taskrobust.nlp.tagging.tagger import load_nltk_tagger
from taskrobust.synthetic.text.grammar import detokenize, generate_documents


class Pass(NamedTuple):
    """Words of one pass in one process, and its seconds of wall time and of process time."""

    words: int
    wall: float
    process: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="text, .jsonl or .parquet file")
    parser.add_argument("--documents", type=int, default=4096, help="documents to annotate, spread over the source")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    documents = read(arguments.source)
    documents = documents[:: max(1, len(documents) // arguments.documents)][: arguments.documents]

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core per process
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        train_wordpiece(documents).save_pretrained(folder)
        for processes in arguments.processes:
            (straight,) = run(straight_passes, documents[::10], folder, processes)
            cold, warm = run(our_passes, documents, folder, processes)
            rows += [
                ("straightforward pipeline", processes, straight, 1.0),
                ("taskrobust, cold", processes, cold, cold[1] / straight[1]),
                ("taskrobust, warm", processes, warm, warm[1] / straight[1]),
            ]
    print(f"{len(documents):,} documents, {sum(map(len, documents)) / 1e6:.1f} MB\n")
    print("| pipeline | processes | words/s | words/s per core | speed-up per core |\n|---|---|---|---|---|")
    for name, processes, (speed, per_core), speed_up in rows:
        print(f"| {name} | {processes} | {speed:,.0f} | {per_core:,.0f} | {speed_up:.1f} |")


def read(source: str | None) -> list[str]:
    if source is not None:
        return list(read_documents(source))
    if "TASKROBUST_DATA" in os.environ:
        return list(read_documents(str(Path(os.environ["TASKROBUST_DATA"]) / "text/books-train.parquet")))
    return [detokenize(document) for document in generate_documents(10_000, seed=0)]


def run(
    passes: Callable[[list[str], str], list[Pass]], documents: list[str], folder: str, processes: int
) -> list[tuple[float, float]]:
    """Words per second of all processes together, and per second of process time, for each pass."""
    context = get_context("spawn")
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, start_worker, (barrier,)) as pool:
        results = list(
            pool.map(passes, [documents[rank::processes] for rank in range(processes)], [folder] * processes)
        )
    speeds = []
    for parts in zip(*results, strict=True):
        words = sum(part.words for part in parts)
        speeds.append((words / max(part.wall for part in parts), words / sum(part.process for part in parts)))
    return speeds


def start_worker(barrier: Barrier) -> None:
    global all_ready
    all_ready = barrier


def timed(work: Callable[[], object]) -> tuple[float, float]:
    all_ready.wait()
    wall, process = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - process


def our_passes(documents: list[str], folder: str) -> list[Pass]:
    annotator = Annotator(load_nltk_tagger(), load_wordpiece(folder), load_sentence_splitter())
    times = [timed(lambda: annotator(documents)) for _ in range(2)]
    words = annotator(documents).words
    return [Pass(words, *seconds) for seconds in times]


def straight_passes(documents: list[str], folder: str) -> list[Pass]:
    tagger, wordpiece, split = load_nltk_tagger(), load_wordpiece(folder), load_sentence_splitter()

    def annotate() -> None:
        for document in documents:
            for paragraph in document.splitlines():
                for sentence in split(paragraph):
                    annotate_sentence(sentence, tagger, wordpiece)

    seconds = timed(annotate)
    return [Pass(Annotator(tagger, wordpiece, split)(documents).words, *seconds)]


if __name__ == "__main__":
    main()
