"""The command that packs folders of images and maps into tar shards."""

import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from taskrobust._io.atomic import checksum, remove_leftovers, replacing
from taskrobust.vision.data.listing import Listing, Missing
from taskrobust.vision.data.shards import LABEL, MANIFEST


def shards(
    source: Path,
    output: Path,
    *,
    samples_per_shard: int = 1000,
    missing: Missing = "error",
    threads: int = 4,
) -> None:
    """Packs folders of images and their maps into tar files, which are read and moved faster than many small files.

    Every file is copied byte for byte. A shard is in webdataset's layout: ``class/stem.modality.suffix``, and
    ``class/stem.cls`` with the index of the class where there are classes. Run again after an interruption, it goes on
    where it stopped. The number of threads does not change a byte.

    Args:
        source: Folder with a folder for each modality, in it class folders (or one named ``all``), in them the files:
            ``source/modality/class/stem.suffix``. Links are followed.
        output: Folder of the shards.
        samples_per_shard: Number of samples in a shard, which is also the unit of work.
        missing: Whether samples that lack a modality are an error or ``absent`` belongs to the data.
        threads: Number of shards that are written at the same time.

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
        _Task(output / f"shard-{number:05d}.tar", first, min(first + samples_per_shard, len(listing)))
        for number, first in enumerate(range(0, len(listing), samples_per_shard))
    ]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("samples"), TimeRemainingColumn())
    shards = []
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(threads) as pool:
        bar = progress.add_task("", total=len(listing))
        for shard in pool.map(partial(_pack, listing), tasks):
            shards.append(shard)
            progress.advance(bar, shard["samples"])
    contents = {"source": str(source.absolute()), "samples": len(listing), **_contents(listing), "shards": shards}
    MANIFEST.write(output, options, complete=True, **contents)
    console.print(f"{output} is complete: {len(listing):,} samples in {len(shards):,} shards.")


def _list(source: Path, missing: Missing) -> Listing:
    folders = {path.name: path for path in sorted(source.glob("*")) if path.is_dir() and path.name[0] != "."}
    if not folders:
        raise ValueError(f"Expected a folder with a folder for each modality, {source} holds none.")
    suffixes = tuple(Image.registered_extensions())
    return Listing(folders, dict.fromkeys(folders, suffixes), missing)


def _contents(listing: Listing) -> dict[str, Any]:
    counts = listing.counts()
    fields = {name: sorted({name + suffix.lower() for suffix in listing.suffixes(name)}) for name in counts}
    return {
        "modalities": {name: {"files": counts[name], "fields": fields[name]} for name in counts},
        "classes": [] if listing.classes == ["all"] else listing.classes,
    }


class _Task(NamedTuple):
    """A shard and the samples that it holds."""

    path: Path
    first: int
    end: int


def _pack(listing: Listing, task: _Task) -> dict[str, Any]:
    """Writes a shard unless it is there, and returns what the manifest says of it."""
    if not task.path.exists():
        with replacing(task.path) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
            for sample in range(task.first, task.end):
                for name, content in _members(listing, sample):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    size = task.path.stat().st_size
    return {"file": task.path.name, "samples": task.end - task.first, "bytes": size, "crc32": checksum(task.path)}


def _members(listing: Listing, sample: int) -> Iterator[tuple[str, bytes]]:
    """Names in the shard and contents of the files of a sample."""
    class_ = listing.class_index(sample)
    key = f"{listing.classes[class_]}/{_escaped(listing.stem(sample))}"
    for modality, path in listing.files(sample):
        yield f"{key}.{modality}{Path(path).suffix.lower()}", Path(path).read_bytes()
    if listing.classes != ["all"]:
        yield f"{key}.{LABEL}", str(class_).encode()


def _escaped(stem: str) -> str:
    """The stem without dots, where the layout has its fields begin, nor leading underscores, which its readers skip."""
    stem = stem.replace("%", "%25").replace(".", "%2E")
    return "%5F" + stem[1:] if stem.startswith("_") else stem
