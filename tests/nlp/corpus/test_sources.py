import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskrobust.nlp.corpus.sources import read_documents, size_in_bytes

DOCUMENTS = ["One.\nTwo é.", "Three.", "Four."]


def read(source: Path, column: str = "text") -> list[str]:
    return [document.strip() for document in read_documents(str(source), column)]


def write(folder: Path, format: str) -> Path:
    path = folder / f"file.{format}"
    if format == "txt":
        path.write_text("\n\n \n".join(DOCUMENTS) + "\n", encoding="utf-8")
    elif format == "jsonl":
        path.write_text("\n".join(json.dumps({"text": text, "id": 3}) for text in DOCUMENTS), encoding="utf-8")
    else:
        pq.write_table(pa.table({"id": range(5), "text": [*DOCUMENTS, None, " "]}), path)
    return path


@pytest.mark.parametrize("format", ["txt", "jsonl", "parquet"])
def test_every_format_gives_the_same_documents(format: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, format)) == DOCUMENTS


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.json"):
        (tmp_path / name).write_text(f"from {name}")
    assert read(tmp_path) == ["from a.txt", "from b.txt"]


def test_half_a_surrogate_pair_in_json_becomes_the_replacement_character(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(r'{"text": "a \ud800 b"}')
    assert "".join(read(path)).replace("\ufffd", "") == "a  b"


@pytest.mark.parametrize("name", ["missing.txt", "missing.jsonl", "missing.parquet"])
def test_a_missing_file_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name}: no such file"):
        read(tmp_path / name)


def test_a_folder_without_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got .* with none"):
        read(tmp_path)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_missing_column_is_an_error_that_lists_the_others(format: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'content'.*\['id', 'text'\].*--text_column"):
        read(write(tmp_path, format), "content")


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_column_without_text_is_an_error(format: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected"):
        read(write(tmp_path, format), "id")


def test_bytes_that_are_no_text_are_an_error_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"good\n" * 20_000 + b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"Expected UTF-8 text in .*file\.txt, got other bytes after line \d+"):
        read(path)


def test_a_truncated_json_file_is_an_error_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    path.write_text(path.read_text()[:-5])
    with pytest.raises(ValueError, match=r"line 3 of .*file\.jsonl \(is it truncated\?\)"):
        read(path)


def test_a_truncated_parquet_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"Expected a parquet file with text, perhaps truncated, in .*file\.parquet: "):
        read(path)


def test_a_name_is_a_data_set_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(name: str, configuration: str | None, split: str) -> Any:
        calls.append((name, configuration, split))
        return datasets.Dataset.from_dict({"text": DOCUMENTS})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for source in ("owner/books", "owner/books:en", "owner/books:en:train[:1%]"):
        assert list(read_documents(source)) == DOCUMENTS
    assert calls == [
        ("owner/books", None, "train"),
        ("owner/books", "en", "train"),
        ("owner/books", "en", "train[:1%]"),
    ]
    with pytest.raises(ValueError, match=r"column 'content' in owner/books, got \['text'\]"):
        list(read_documents("owner/books", "content"))


def test_a_hub_out_of_reach_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/books' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"got 'owner/books', which could not be loaded: Couldn't reach.*Check"):
        list(read_documents("owner/books"))


def test_several_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    first, second = tmp_path / "b.txt", tmp_path / "a.jsonl"
    first.write_text("One.\n\nTwo.\n")
    second.write_text('{"text": "Three."}\n')
    assert [text.strip() for text in read_documents([str(first), str(second)])] == ["One.", "Two.", "Three."]
    assert size_in_bytes([str(first), str(second)]) == first.stat().st_size + second.stat().st_size


def test_rows_that_are_sentences_are_joined_to_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_dict({"text": ["One.", "Two.", "Three."]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: {"someone/books": rows}[name])
    assert list(read_documents("someone/books@2")) == ["One.\nTwo.", "Three."]
