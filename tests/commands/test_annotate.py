import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from taskrobust.nlp.corpus import annotate as module
from taskrobust.nlp.corpus.annotate import annotate, write_tagged_corpus
from taskrobust.nlp.corpus.store import Corpus, write_shard
from taskrobust.nlp.tagging.tagset import CLASSES

OPTIONS: dict[str, Any] = {"vocab_size": 160, "sequence_length": 32, "documents_per_shard": 10}


@pytest.fixture
def text(tmp_path: Path, documents: list[str]) -> str:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return str(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("nltk_data")
def test_text_becomes_a_corpus(text: str, tmp_path: Path, documents: list[str]) -> None:
    annotate(text, tmp_path / "corpus", **OPTIONS)
    corpus = Corpus(tmp_path / "corpus")
    batch = corpus.__getitems__([(index, 0) for index in range(len(corpus))])
    assert corpus.sequence_length == 32
    assert 0.4 < batch.is_random.mean() < 0.7
    written = set(" ".join(documents).lower().split())
    first = batch.input_ids[0, 1 : batch.first[0] + 1]
    words = corpus.tokenizer.decode(first).split()
    assert len([word for word in words if word in written]) > len(words) / 2
    assert corpus.pieces_by_class[CLASSES.index("noun")] > 0


@pytest.mark.usefixtures("nltk_data")
def test_the_last_document_alone_joins_the_shard_before(text: str, tmp_path: Path, documents: list[str]) -> None:
    assert len(documents) == 41
    annotate(text, tmp_path / "corpus", **OPTIONS)
    assert len(list((tmp_path / "corpus").glob("shard-*.arrow"))) == 4


@pytest.mark.usefixtures("nltk_data")
def test_two_processes_write_the_bytes_of_one(text: str, tmp_path: Path) -> None:
    annotate(text, tmp_path / "one", **OPTIONS)
    annotate(text, tmp_path / "two", num_proc=2, **OPTIONS)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.usefixtures("nltk_data")
def test_an_interrupted_run_resumes_to_the_same_bytes(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate(text, tmp_path / "whole", **OPTIONS)
    output = tmp_path / "interrupted"
    written = []

    def write_two_and_interrupt(path: Path, *arguments: Any) -> None:
        if len(written) == 2:
            path.with_name(".shard-00002.arrow.unfinished").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        write_shard(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", write_two_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            annotate(text, output, **OPTIONS)
    with pytest.raises(ValueError, match="got an unfinished folder"):
        Corpus(output)
    times = {path: path.stat().st_mtime_ns for path in written}
    annotate(text, output, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in written} == times
    assert contents(output) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("nltk_data")
def test_a_deleted_shard_is_written_again(text: str, tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    annotate(text, output, **OPTIONS)
    before = contents(output)
    (output / "shard-00001.arrow").unlink()
    annotate(text, output, **OPTIONS)
    assert contents(output) == before


@pytest.mark.usefixtures("nltk_data")
def test_other_options_in_the_same_folder_are_an_error_that_names_them(text: str, tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    annotate(text, output, **OPTIONS)
    with pytest.raises(ValueError, match=r"other settings: seed is 0 .*; sequence_length is 32 there and 64 here\."):
        annotate(text, output, **OPTIONS | {"sequence_length": 64, "seed": 1})
    with open(text, "a") as file:
        file.write("\n\nAnother document.")
    with pytest.raises(ValueError, match=r"other settings: source_bytes is \d+ there and \d+ here\."):
        annotate(text, output, **OPTIONS)


@pytest.mark.usefixtures("nltk_data")
def test_a_folder_with_something_else_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a new or empty folder, or an annotated corpus, got other files"):
        annotate(text, tmp_path, **OPTIONS)


@pytest.mark.usefixtures("nltk_data")
@pytest.mark.parametrize(("content", "found"), [("", 0), (" \n\n\t\n", 0), ("One document.\nOnly.", 1)])
def test_a_source_without_two_documents_is_an_error_that_writes_nothing(
    content: str, found: int, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(content)
    with pytest.raises(ValueError, match=rf"Expected at least two documents with text.*, got {found} in"):
        annotate(str(tmp_path / "text.txt"), tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_length": 7}, "Expected a sequence_length from 8 to 65535, got 7"),
        ({"documents_per_shard": 1}, "Expected documents_per_shard of at least 2.*got 1"),
        ({"num_proc": 0}, "Expected num_proc of at least 1, got 0"),
        ({"vocab_size": 3}, "Expected a vocab_size between 6 and 65535.*got 3"),
        ({"tokenizer": "missing/vocab.txt/none"}, "Expected a folder or a name on the Hugging Face Hub, got "),
    ],
)
@pytest.mark.usefixtures("nltk_data")
def test_a_wrong_option_is_an_error_that_writes_nothing(
    options: dict[str, Any], message: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        annotate(text, tmp_path / "corpus", **options)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.usefixtures("nltk_data")
def test_a_held_out_corpus_uses_the_tokenizer_of_another(text: str, tmp_path: Path) -> None:
    annotate(text, tmp_path / "train", **OPTIONS)
    annotate(text, tmp_path / "held-out", tokenizer=str(tmp_path / "train/tokenizer"), sequence_length=32)
    assert Corpus(tmp_path / "held-out").tokenizer.get_vocab() == Corpus(tmp_path / "train").tokenizer.get_vocab()


def test_tagged_documents_of_another_provenance_are_refused(tmp_path: Path, small_wordpiece: Any) -> None:
    documents = [[[("The", "DT"), ("cat", "NN")], [("Run", "VB")]]] * 4
    output = tmp_path / "corpus"
    write_tagged_corpus(documents, output, tokenizer=small_wordpiece, provenance={"grammar_seed": 0})
    before = contents(output)
    write_tagged_corpus(documents, output, tokenizer=small_wordpiece, provenance={"grammar_seed": 0})
    assert contents(output) == before
    with pytest.raises(ValueError, match="grammar_seed is 0 there and 1 here"):
        write_tagged_corpus(documents, output, tokenizer=small_wordpiece, provenance={"grammar_seed": 1})


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(
    not {"NLTK_DATA", "TASKROBUST_DATA"} <= os.environ.keys(),
    reason="NLTK_DATA and TASKROBUST_DATA do not name folders with NLTK's tagger and the books",
)
def test_books_killed_and_resumed_with_two_processes_give_the_bytes_of_one_run(tmp_path: Path) -> None:
    source = str(Path(os.environ["TASKROBUST_DATA"]) / "text/books-validation.parquet")
    options = {"vocab_size": 4000, "documents_per_shard": 40}
    annotate(source, tmp_path / "whole", **options)

    output = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from taskrobust.nlp.corpus.annotate import annotate\n"
        f"if __name__ == '__main__': annotate({source!r}, Path({str(output)!r}), num_proc=2, **{options!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(output.glob("shard-*.arrow")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not json.loads((output / "corpus.json").read_text())["complete"]
    annotate(source, output, num_proc=2, **options)
    assert contents(output) == contents(tmp_path / "whole")
