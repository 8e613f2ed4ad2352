"""The command that packs folders of images and maps into Arrow shards."""

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from taskrobust._io.atomic import remove_leftovers, replacing
from taskrobust._io.settings import AT_LEAST_1
from taskrobust.vision.data.listing import Listing, Missing
from taskrobust.vision.data.shards import CHECKSUMS, KEY, LABEL, MANIFEST, identity

_BATCH = 32
"""Rows in a record batch, which holds at most 2 GiB per modality."""


def shards(
    source: Path,
    output: Path,
    *,
    samples_per_shard: Annotated[int, AT_LEAST_1] = 1000,
    missing: Missing = "error",
    threads: Annotated[int, AT_LEAST_1] = 4,
) -> None:
    """Packs folders of images and their maps into Arrow files, which are faster to read and move than many small files.

    The original bytes of every file are stored. ``ImageShards`` reads the shards, as does ``datasets``
    (``Dataset.from_file``): a row has a column per modality with the bytes and the name of the file, the ``key``
    class/stem, and the index of the class as ``label`` if there are classes. An interrupted command resumes when run
    again. The number of threads does not change the result.

    Args:
        source: Folder with a folder per modality, in it class folders (or one named ``all``), in them the files:
            ``source/modality/class/stem.suffix``. Links are followed.
        output: Folder of the shards.
        samples_per_shard: Number of samples per shard.
        missing: Whether samples without one of the modalities are an error or are allowed (``absent``).
        threads: Number of shards to write at the same time.

    Raises:
        ValueError: If files do not pair, or ``output`` holds something else.
    """
    if samples_per_shard < 1 or threads < 1:
        raise ValueError(
            f"Expected samples_per_shard and threads of at least 1, got {samples_per_shard} and {threads}."
        )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    listing = _list(source, missing)
    options = {"samples_per_shard": samples_per_shard, "listing": listing.checksum()}
    if MANIFEST.is_started(output, options) and MANIFEST.is_complete(output):
        console.print(f"{output} is complete.")
        return
    output.mkdir(parents=True, exist_ok=True)
    MANIFEST.write(output, options, complete=False)
    remove_leftovers(output)
    tasks = [
        _Task(output / f"shard-{number:05d}.arrow", first, min(first + samples_per_shard, len(listing)))
        for number, first in enumerate(range(0, len(listing), samples_per_shard))
    ]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("samples"), TimeRemainingColumn())
    shards = []
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(threads) as pool:
        bar = progress.add_task("", total=len(listing))
        for shard in pool.map(partial(_pack, listing), tasks):
            shards.append(shard)
            progress.advance(bar, shard["samples"])
    MANIFEST.write(
        output,
        options,
        complete=True,
        source=str(source.absolute()),
        samples=len(listing),
        modalities=listing.counts(),
        classes=_classes(listing),
        shards=shards,
    )
    console.print(f"{output} is complete: {len(listing):,} samples in {len(shards):,} shards.")


def _list(source: Path, missing: Missing) -> Listing:
    folders = {path.name: path for path in sorted(source.glob("*")) if path.is_dir() and path.name[0] != "."}
    if not folders:
        raise ValueError(f"Expected a folder with a folder for each modality, {source} holds none.")
    reserved = [name for name in (KEY, LABEL, CHECKSUMS) if name in folders]
    if reserved:
        raise ValueError(
            f"Expected names of modalities in {source}, got the reserved name {reserved[0]}. Rename the folder."
        )
    suffixes = tuple(Image.registered_extensions())
    return Listing(folders, dict.fromkeys(folders, suffixes), missing)


def _classes(listing: Listing) -> list[str]:
    return [] if listing.classes == ["all"] else listing.classes


class _Task(NamedTuple):
    """A shard and the samples that it holds."""

    path: Path
    first: int
    end: int


def _pack(listing: Listing, task: _Task) -> dict[str, Any]:
    """Write a shard unless it exists, and return its entry in the manifest."""
    from datasets import Features, Image, Value  # takes a second to import
    from datasets.arrow_writer import ArrowWriter

    if not task.path.exists():
        features = {KEY: Value("binary")} | ({LABEL: Value("int64")} if _classes(listing) else {})
        features |= {name: Image(decode=False) for name in listing.folders}
        features |= {CHECKSUMS: {name: Value("uint32") for name in listing.folders}}
        with (
            replacing(task.path) as temporary,
            ArrowWriter(features=Features(features), path=str(temporary), writer_batch_size=_BATCH) as writer,
        ):
            for sample in range(task.first, task.end):
                writer.write(_row(listing, sample))
            writer.finalize()
    return {"file": task.path.name, "samples": task.end - task.first, "bytes": task.path.stat().st_size}


def _row(listing: Listing, sample: int) -> dict[str, Any]:
    class_ = listing.class_index(sample)
    key = os.fsencode(f"{listing.classes[class_]}/{listing.stem(sample)}")
    label = class_ if _classes(listing) else None
    row: dict[str, Any] = dict.fromkeys(listing.folders)
    checksums = dict.fromkeys(listing.folders, 0)
    for modality, path in listing.files(sample):
        content = Path(path).read_bytes()
        name = key + os.fsencode(Path(path).suffix)
        row[modality] = {"bytes": content, "path": name.decode(errors="replace")}
        checksums[modality] = zlib.crc32(content, identity(key, label))
    return row | {KEY: key, CHECKSUMS: checksums} | ({} if label is None else {LABEL: label})
