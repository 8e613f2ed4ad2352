"""Readers of documents: text files, JSON lines, parquet files, data sets on the hub.

The readers of ``datasets`` are not used for files: their errors do not name the line, and they keep byte order marks in
text, refuse JSON with half of a surrogate pair, and do not separate documents at lines of blanks.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from taskrobust._io.damage import damage_named

_JSON_LINES: Final = (".jsonl", ".ndjson")
_PARQUET: Final = (".parquet",)
_TEXT: Final = (".txt", ".text", ".md")
_FORMATS: Final = (*_TEXT, *_JSON_LINES, *_PARQUET)

Source = str | list[str]
"""A file, a folder or a data set on the hub, or a list of these."""


def read_documents(source: Source, text_column: str = "text") -> Iterator[str]:
    """Read documents one by one, with newlines between paragraphs. Blank documents are left out.

    Args:
        source: A plain text file (documents separated by blank lines), a ``.jsonl`` file (one object per line), a
            ``.parquet`` file, a folder of such files (read in the order of their names), or a data set on the hub:
            "name", "name:configuration" or "name:configuration:split" (the split defaults to "train"). If its rows are
            sentences, a suffix such as "@50" makes a document of every 50 rows. Or a list of these.
        text_column: Field or column of the text. Not used for plain text.

    Raises:
        ValueError: If there is no such source, the column is missing, or a file is damaged.
    """
    documents = chain.from_iterable(_read(one, text_column) for one in _each(source))
    return (document for document in documents if document and not document.isspace())


def size_in_bytes(source: Source) -> int:
    """Total size of the files of a source. Data sets on the hub count as 0."""
    paths = [Path(one).expanduser() for one in _each(source)]
    return sum(file.stat().st_size for path in paths if _is_path(path) for file in _files(path))


def _each(source: Source) -> list[str]:
    return [source] if isinstance(source, str) else list(source)


def _read(source: str, column: str) -> Iterator[str]:
    path = Path(source).expanduser()
    return _read_path(path, column) if _is_path(path) else _read_hub(source, column)


def _is_path(path: Path) -> bool:
    return path.exists() or path.is_absolute() or path.suffix in _FORMATS


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise ValueError(f"Expected a file, a folder or the name of a data set on the hub, got {path}: no such file.")
    files = sorted(file for file in path.rglob("*") if file.suffix in _FORMATS and file.is_file())
    if not files:
        raise ValueError(f"Expected a folder with files {' '.join(_FORMATS)}, got {path} with none.")
    return files


def _read_path(path: Path, column: str) -> Iterator[str]:
    for file in _files(path):
        if file.suffix in _PARQUET:
            yield from _read_parquet(file, column)
        elif file.suffix in _JSON_LINES:
            yield from _read_json_lines(file, column)
        else:
            yield from _read_plain_text(file)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    number = 0
    with file.open(encoding="utf-8-sig") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                yield number, line
        except UnicodeDecodeError as error:
            raise ValueError(f"Expected UTF-8 text in {file}, got other bytes after line {number}: {error}") from error


def _read_plain_text(file: Path) -> Iterator[str]:
    paragraphs: list[str] = []
    for _, line in _lines(file):
        if line.isspace():
            yield "".join(paragraphs)
            paragraphs = []
        else:
            paragraphs.append(line)
    yield "".join(paragraphs)


def _read_json_lines(file: Path, column: str) -> Iterator[str]:
    for number, line in _lines(file):
        if line.isspace():
            continue
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"Expected one JSON object per line, got none in line {number} of {file} (is it truncated?): {error}"
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get(column), str):
            found = f"the fields {sorted(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
            raise ValueError(
                f"Expected an object with a string {column!r} in line {number} of {file}, got {found}. Set "
                "--text_column to the field of the text."
            )
        # JSON may contain half of a surrogate pair, which is not a character.
        yield record[column].encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _read_parquet(file: Path, column: str) -> Iterator[str]:
    with damage_named(file, "a parquet file with text, perhaps truncated,"):
        parquet = pq.ParquetFile(file)
        _check_column(column, parquet.schema_arrow.names, str(file))
        kind = parquet.schema_arrow.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ValueError(f"Expected text in column {column!r} of {file}, got {kind}.")
    batches = parquet.iter_batches(columns=[column], batch_size=1024)
    while True:
        with damage_named(file, "a parquet file with text, perhaps truncated,"):
            batch = next(batches, None)
            texts = [] if batch is None else batch.column(0).to_pylist()
        if batch is None:
            return
        yield from texts


def _read_hub(source: str, column: str) -> Iterator[str]:
    from datasets import load_dataset  # takes a second to import, and most sources are files

    source, _, rows = source.partition("@")
    name, configuration, split, *_ = [*source.split(":", 2), "", ""]
    try:
        dataset = load_dataset(name, configuration or None, split=split or "train")
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected a file or a data set on the hub, got {source!r}, which could not be loaded: {error}. Check the "
            "spelling and the network."
        ) from error
    _check_column(column, dataset.column_names, source)
    if rows:  # which are sentences
        for batch in dataset.iter(batch_size=int(rows)):
            yield "\n".join(batch[column])
        return
    for batch in dataset.iter(batch_size=1024):
        yield from batch[column]


def _check_column(column: str, columns: list[str], source: str) -> None:
    if column not in columns:
        raise ValueError(f"Expected a column {column!r} in {source}, got {columns}. Set --text_column.")
