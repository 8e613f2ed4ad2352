"""Scenes on disk: one array of records that is mapped into memory."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from taskrobust._io.atomic import write_whole
from taskrobust._io.locks import taking_turns
from taskrobust._io.paths import filled_in
from taskrobust.synthetic.rooms.guesses import pseudo_labels as as_guessed
from taskrobust.synthetic.rooms.labels import LABELS, OBJECTS, ROOMS
from taskrobust.synthetic.rooms.render import render
from taskrobust.synthetic.rooms.rooms import Domain, Split, generator_of, make_scene

MANIFEST: Final = "scenes.json"
RECORDS: Final = "records.npy"
_FINISHED: Final = "finished.txt"
_FORMAT: Final = 1
_CHUNK: Final = 250


@dataclass(kw_only=True)
class ScenesConfig:
    """Generated rooms to train on and to evaluate on.

    Args:
        folder: Where they are, in ``train`` and ``held-out``. Environment variables are filled in.
        train: Number of rooms to train on.
        held_out: Number of rooms to evaluate on.
        size: Side of the pictures in pixels; leave room for crops.
        pseudo_labels: Whether depth and labels are as a model would guess them, instead of exact.
        num_proc: Processes that generate them.
    """

    folder: Path = Path("scenes")
    train: int = 20_000
    held_out: int = 1_000
    size: int = 72
    pseudo_labels: bool = True
    num_proc: int = 1


def prepare_scenes(config: ScenesConfig) -> None:
    """Generate the rooms that are not there yet; of several processes one does and the others wait.

    Called before the processes form a group, whose members do not wait for long.

    Raises:
        ValueError: If a folder holds other rooms.
    """
    folder = Path(filled_in(config.folder))
    if int(os.environ.get("RANK", 0)) == 0:
        noisy, size, processes = config.pseudo_labels, config.size, config.num_proc
        generate_scenes(folder / "train", "train", config.train, size, pseudo_labels=noisy, num_proc=processes)
        generate_scenes(folder / "held-out", "val", config.held_out, size, pseudo_labels=noisy, num_proc=processes)
    while not (is_complete(folder / "train") and is_complete(folder / "held-out")):
        time.sleep(0.5)


def generate_scenes(
    folder: Path,
    split: Split,
    images: int,
    size: int = 64,
    *,
    domain: Domain = "source",
    pseudo_labels: bool = False,
    seed: int = 0,
    num_proc: int = 1,
) -> None:
    """Generate rooms into a folder, unless they are there. Cut off, the same call goes on where it stopped.

    A room is a function of seed, domain, split and number alone: no two splits or domains share one, and more images
    are more of the same. The pictures and maps are in one array, which ``Scenes`` reads; no image files are written.

    Args:
        folder: Where they are written.
        split: train, val or test.
        images: How many.
        size: Side of the pictures in pixels.
        domain: ``source``, or ``shifted``: larger rooms, a wider view, dim and coloured light, paler things and
            more noise.
        pseudo_labels: Whether depth and labels are as a model would guess them, instead of exact.
        seed: Seed of all rooms.
        num_proc: Processes.

    Raises:
        ValueError: If the folder holds other rooms.
        OSError: If they do not fit on the disk.
    """
    wanted = {
        "format": _FORMAT,
        "split": split,
        "images": images,
        "size": size,
        "domain": domain,
        "pseudo_labels": pseudo_labels,
        "seed": seed,
    }
    with taking_turns(folder):
        _start(folder, wanted)
        if not is_complete(folder):
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
    _write_manifest(folder, wanted | {"complete": True, "labels": LABELS, "classes": OBJECTS, "rooms": ROOMS})
    (folder / _FINISHED).unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder of rooms says about itself.

    Raises:
        ValueError: If it holds none, or not all of them yet.
    """
    path = folder / MANIFEST
    manifest = json.loads(path.read_text()) if path.exists() else {}
    if not manifest.get("complete"):
        raise ValueError(
            f"Expected a folder of generated rooms, finished, got {folder}. Make it with generate_scenes, or by "
            "`scenes` in the configuration."
        )
    return dict(manifest)


def is_complete(folder: Path) -> bool:
    """Whether all rooms of a folder are there."""
    path = folder / MANIFEST
    return path.exists() and bool(json.loads(path.read_text())["complete"])


def record_type(size: int) -> np.dtype[Any]:
    """What a room takes on disk: 6 bytes a pixel, and two for its labels."""
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
    path = folder / MANIFEST
    if path.exists():
        there = json.loads(path.read_text())
        changed = [f"{key} is {there.get(key)!r} there" for key, value in wanted.items() if there.get(key) != value]
        if changed:
            raise ValueError(
                f"Expected rooms of {wanted} in {folder}, but {', '.join(changed)}. Choose another folder or delete it."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FINISHED).unlink(missing_ok=True)
    _reserve(folder / RECORDS, wanted["size"], wanted["images"])
    _write_manifest(folder, wanted | {"complete": False})


def _reserve(path: Path, size: int, images: int) -> None:
    """Make a file of empty records that has its place on the disk: a full one kills who writes to a mapped file."""
    try:
        np.lib.format.open_memmap(path, "w+", record_type(size), (images,)).flush()
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1))


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
