import subprocess
import sys
import threading
from pathlib import Path

import pytest

from taskrobust.nlp.corpus.build import CorpusConfig, prepare
from taskrobust.nlp.corpus.store import Corpus


def config(folder: Path, **changes: object) -> CorpusConfig:
    settings = {
        "train": folder / "train",
        "held_out": folder / "held-out",
        "train_source": "grammar",
        "held_out_source": "grammar",
        "vocab_size": 300,
        "sequence_length": 32,
        "documents": 40,
        "held_out_documents": 20,
    }
    return CorpusConfig(**settings | changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    prepare(config(folder))
    return folder


def test_held_out_corpus_has_the_vocabulary_of_train_and_other_text(made: Path) -> None:
    train, held_out = Corpus(made / "train"), Corpus(made / "held-out")
    assert train.tokenizer.get_vocab() == held_out.tokenizer.get_vocab()
    keys = [(index, 0) for index in range(10)]
    assert (train.__getitems__(keys).input_ids != held_out.__getitems__(keys).input_ids).any()


def test_preparing_again_changes_nothing(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.arrow")}
    prepare(config(made))
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.arrow")} == before


def test_folder_of_other_generated_text_is_refused(made: Path) -> None:
    with pytest.raises(ValueError, match="was made with other settings"):
        prepare(config(made, documents=41))


def test_finished_corpus_is_read_without_writing(made: Path) -> None:
    """As from a read-only disk, also by root, whom permissions do not stop."""
    code = f"""
import os, sys
from pathlib import Path
from taskrobust.nlp.corpus.build import CorpusConfig, prepare
from taskrobust.nlp.corpus.store import Corpus

def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith({str(made)!r}):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", arguments[0])
    if event.startswith(("os.rename", "os.remove", "os.mkdir")) and {str(made)!r} in str(arguments[0]):
        raise OSError(30, "Read-only file system", arguments[0])

sys.addaudithook(refuse)
folder = Path({str(made)!r})
prepare(CorpusConfig(train=folder / "train", held_out=folder / "held-out", train_source="grammar",
    held_out_source="grammar", vocab_size=300, sequence_length=32, documents=40, held_out_documents=20))
print(len(Corpus(folder / "train")), Corpus(folder / "train").counts.sum())
try:
    open(folder / "train" / "new", "w")
except OSError as error:
    print(error.strerror)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    corpus = Corpus(made / "train")
    assert result.stdout == f"{len(corpus)} {corpus.counts.sum()}\nRead-only file system\n", result.stderr


def test_finished_corpus_needs_neither_its_source_nor_nltk(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    prepare(config(made, train_source="$NOWHERE/books.txt", held_out_source="missing.txt"))


def test_finished_corpus_of_another_sequence_length_is_refused(made: Path) -> None:
    with pytest.raises(ValueError, match=r"^Expected a corpus of sequence_length 64 in .*train, got 32\.$"):
        prepare(config(made, train_source="books.txt", sequence_length=64))


def test_environment_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ValueError, match=r"^Expected the environment variable NOWHERE to be set"):
        prepare(config(tmp_path, train_source="$NOWHERE/books.txt"))


def test_other_ranks_wait_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    waiting = threading.Thread(target=prepare, args=[config(tmp_path)])
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    prepare(config(tmp_path))
    waiting.join(30)
    assert not waiting.is_alive()
