"""Where documents come from: text files, JSON lines, parquet files, data sets of the hub."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

_JSON_LINES: Final = (".jsonl", ".ndjson")
_PARQUET: Final = (".parquet",)
_TEXT: Final = (".txt", ".text", ".md")
_FORMATS: Final = (*_TEXT, *_JSON_LINES, *_PARQUET)

Source = str | list[str]
"""A file, a folder or a data set of the hub, or several."""


def read_documents(source: Source, text_column: str = "text") -> Iterator[str]:
    """Reads documents one by one; paragraphs are separated by newlines, blank documents are left out.

    Args:
        source: A plain text file (a blank line separates documents), a ``.jsonl`` file (an object a line), a
            ``.parquet`` file, a folder of such files (read in the order of their names), or the name of a data set on
            the hub: "name", "name:configuration" or "name:configuration:split" (by default the split "train"), with
            "@50" behind it where a row is a sentence and 50 of them shall be a document. Or a list of such sources.
        text_column: The field or column of the text; plain text has none.

    Raises:
        ValueError: Where there is no such source, the column is missing, or a file is damaged.
    """
    documents = chain.from_iterable(_read(one, text_column) for one in _each(source))
    return (document for document in documents if document and not document.isspace())


def size_in_bytes(source: Source) -> int:
    """Size of the files of a source; a data set of the hub adds nothing."""
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
        raise ValueError(f"Expected a folder with files {' '.join(_FORMATS)}, {path} holds none.")
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
            raise ValueError(f"Expected UTF-8 text, {file} holds other bytes after line {number}: {error}") from error


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
                f"Expected a JSON object a line, line {number} of {file} is none (is the file truncated?): {error}"
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get(column), str):
            found = f"the fields {sorted(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
            raise ValueError(
                f"Expected an object with a string {column!r}, line {number} of {file} holds {found}. Name the field "
                "with --text_column."
            )
        # JSON may escape half of a surrogate pair, which is no character.
        yield record[column].encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _read_parquet(file: Path, column: str) -> Iterator[str]:
    try:
        parquet = pq.ParquetFile(file)
        _check_column(column, parquet.schema_arrow.names, str(file))
        kind = parquet.schema_arrow.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ValueError(f"Expected text in column {column!r} of {file}, got {kind}.")
        for batch in parquet.iter_batches(columns=[column], batch_size=1024):
            yield from batch.column(0).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"Expected a parquet file, {file} cannot be read (is it truncated?): {error}") from error


def _read_hub(source: str, column: str) -> Iterator[str]:
    from datasets import load_dataset  # takes a second to import, and most sources are files

    source, _, rows = source.partition("@")
    name, configuration, split, *_ = [*source.split(":", 2), "", ""]
    try:
        dataset = load_dataset(name, configuration or None, split=split or "train")
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source!r} is no file here, and as a data set it could not be loaded from the hub: {error}. Check the "
            "spelling and the network, or pass a file."
        ) from error
    _check_column(column, dataset.column_names, source)
    if rows:  # each a sentence
        for batch in dataset.iter(batch_size=int(rows)):
            yield "\n".join(batch[column])
        return
    for batch in dataset.iter(batch_size=1024):
        yield from batch[column]


def _check_column(column: str, columns: list[str], source: str) -> None:
    if column not in columns:
        raise ValueError(f"Expected a column {column!r} in {source}, got {columns}. Name it with --text_column.")
