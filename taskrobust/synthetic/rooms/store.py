"""Scenes on disk: one array of records that is mapped into memory."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from taskrobust._io.atomic import remove_leftovers, replacing
from taskrobust._io.locks import locked, made_by_one
from taskrobust._io.manifest import Manifest
from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import AT_LEAST_1, MAY_CHANGE, Checked
from taskrobust.synthetic.rooms.guesses import pseudo_labels as as_guessed
from taskrobust.synthetic.rooms.labels import LABELS, OBJECTS, ROOMS
from taskrobust.synthetic.rooms.render import render
from taskrobust.synthetic.rooms.rooms import Domain, Split, generator_of, make_scene

MANIFEST: Final = Manifest(file="scenes.json", kind="generated rooms", format=2, command="scenes --folder")
RECORDS: Final = "records.npy"
_FINISHED: Final = "finished.txt"
_CHUNK: Final = 250


@dataclass(kw_only=True)
class ScenesConfig(Checked):
    """Generated rooms to train on and to evaluate on.

    Args:
        folder: Where they are, in ``train`` and ``held-out``. Environment variables are filled in.
        train: Number of rooms to train on.
        held_out: Number of rooms to evaluate on.
        size: Side of the pictures in pixels; leave room for crops.
        pseudo_labels: Whether depth and labels are as a model would guess them, instead of exact.
        num_proc: Processes that generate them.
    """

    group: ClassVar = "scenes"
    folder: Annotated[Path, MAY_CHANGE] = Path("scenes")
    train: Annotated[int, AT_LEAST_1] = 20_000
    held_out: Annotated[int, AT_LEAST_1] = 1_000
    size: Annotated[int, AT_LEAST_1] = 72
    pseudo_labels: bool = True
    num_proc: Annotated[int, MAY_CHANGE, AT_LEAST_1] = 1


def prepare_scenes(config: ScenesConfig) -> None:
    """Generate the rooms that are not there yet; of several processes one does and the others wait.

    Called before the processes form a group, whose members do not wait for long.

    Raises:
        ValueError: If a folder holds other rooms.
    """
    folder = Path(expand_variables(config.folder))
    places = folder / "train", folder / "held-out"

    def make() -> None:
        noisy, size, processes = config.pseudo_labels, config.size, config.num_proc
        generate_scenes(places[0], "train", config.train, size, pseudo_labels=noisy, num_proc=processes)
        generate_scenes(places[1], "val", config.held_out, size, pseudo_labels=noisy, num_proc=processes)

    made_by_one(folder, make, lambda: all(map(MANIFEST.is_complete, places)))


def generate_scenes(
    folder: Path,
    split: Split,
    images: int,
    size: int = 64,
    *,
    domain: Domain = "source",
    pseudo_labels: bool = False,
    seed: int = 0,
    num_proc: Annotated[int, MAY_CHANGE] = 1,
) -> None:
    """Generate rooms into a folder, unless they exist. After an interruption, the same call resumes.

    A room is a function of seed, domain, split and number alone: no two splits or domains share one, and more images
    are more of the same. The pictures and maps are in one array, which ``Scenes`` reads; no image files are written.

    Args:
        folder: Where they are written.
        split: train, val or test.
        images: How many.
        size: Side of the pictures in pixels.
        domain: ``source``, or ``shifted``: larger rooms, a wider view, dim and colored light, paler things and
            more noise.
        pseudo_labels: Whether depth and labels are as a model would guess them, instead of exact.
        seed: Seed of all rooms.
        num_proc: Processes.

    Raises:
        ValueError: If the folder holds other rooms.
        OSError: If they do not fit on the disk.
    """
    wanted = {
        "split": split,
        "images": images,
        "size": size,
        "domain": domain,
        "pseudo_labels": pseudo_labels,
        "seed": seed,
    }
    if MANIFEST.is_started(folder, wanted) and MANIFEST.is_complete(folder):
        return
    with locked(folder):
        _start(folder, wanted)
        if not MANIFEST.is_complete(folder):
            _generate(folder, wanted, num_proc)


def _generate(folder: Path, wanted: dict[str, Any], num_proc: int) -> None:
    images = wanted["images"]
    chunks = [range(first, min(first + _CHUNK, images)) for first in range(0, images, _CHUNK)]
    finished = _finished(folder)
    waiting = [chunk for chunk in chunks if chunk.start not in finished]
    with _progress() as progress, (folder / _FINISHED).open("a") as note:
        task = progress.add_task(f"rooms, {wanted['split']}", total=images, completed=images - sum(map(len, waiting)))
        for chunk in _write(folder, wanted, waiting, num_proc):
            note.write(f"{chunk.start}\n")
            note.flush()
            progress.advance(task, len(chunk))
    (folder / _FINISHED).unlink()
    MANIFEST.write(folder, wanted, complete=True, labels=LABELS, classes=OBJECTS, rooms=ROOMS)


def record_type(size: int) -> np.dtype[Any]:
    """The record of a room on disk: 6 bytes per pixel, and two for its labels."""
    return np.dtype(
        [
            ("rgb", "u1", (size, size, 3)),
            ("depth", "<u2", (size, size)),
            ("semseg", "u1", (size, size)),
            ("label", "u1"),
            ("room", "u1"),
        ]
    )


def _start(folder: Path, wanted: dict[str, Any]) -> None:
    """Make room for the records, or check that those which are there are the ones that are wanted."""
    if not MANIFEST.is_started(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        MANIFEST.write(folder, wanted, complete=False)
    remove_leftovers(folder)
    if not (folder / RECORDS).exists():
        (folder / _FINISHED).unlink(missing_ok=True)
        _reserve(folder / RECORDS, wanted["size"], wanted["images"])


def _reserve(path: Path, size: int, images: int) -> None:
    """Make a file of empty records that has its place on the disk: a full one kills who writes to a mapped file."""
    try:
        with replacing(path) as unfinished:
            np.lib.format.open_memmap(unfinished, "w+", record_type(size), (images,)).flush()
            if hasattr(os, "posix_fallocate"):  # not on macOS
                with unfinished.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, unfinished.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _finished(folder: Path) -> set[int]:
    """First numbers of the chunks that are written; a torn last line is none."""
    path = folder / _FINISHED
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return {int(line) for line in lines if line.endswith("\n")}


def _write(folder: Path, wanted: dict[str, Any], chunks: list[range], num_proc: int) -> Iterator[range]:
    """Write chunks, and yield each that is on the disk."""
    if num_proc == 1:
        for chunk in chunks:
            yield _write_chunk(folder, wanted, chunk)
        return
    pool = ProcessPoolExecutor(num_proc, multiprocessing.get_context("spawn"))
    try:
        for future in [pool.submit(_write_chunk, folder, wanted, chunk) for chunk in chunks]:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_chunk(folder: Path, wanted: dict[str, Any], chunk: range) -> range:
    records = np.load(folder / RECORDS, mmap_mode="r+")
    for index in chunk:
        generator = generator_of(wanted["split"], index, wanted["domain"], wanted["seed"])
        scene = make_scene(generator, wanted["domain"])
        rendering = render(scene, wanted["size"], generator)
        if wanted["pseudo_labels"]:
            rendering = as_guessed(rendering, generator)
        records[index] = (*rendering, scene.label, scene.room)
    records.flush()
    return chunk


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
