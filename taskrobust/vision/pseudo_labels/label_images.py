"""Runs a model over the images of a folder, with reading and writing in the background; resumes after interruptions."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taskrobust._io.atomic import replacing
from taskrobust.vision.data.base import DAMAGED, OnError, open_image
from taskrobust.vision.modalities import Rgb
from taskrobust.vision.pseudo_labels.labelers import Labeler, Size

_SECONDS_BETWEEN_LINES: Final = 30


def label_images(
    labeler: Labeler,
    source: Path,
    images: Sequence[str],
    output: Path,
    *,
    batch_size: int,
    workers: int,
    on_error: OnError,
) -> None:
    """Write the missing maps of one kind.

    Args:
        labeler: The model.
        source: Folder of the images.
        images: Their paths, relative to ``source``.
        output: Folder that contains the folder of the maps.
        batch_size: Images per batch.
        workers: Processes that read images, and threads that write maps. 0 reads in this process.
        on_error: Whether a file that is not an image is an error or is skipped and counted.

    Raises:
        ValueError: If a file is not an image.
    """
    folder = output / labeler.modality
    names = _without_map(images, folder)
    reader = DataLoader(
        _Images(source, labeler.processor),
        sampler=names,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=max(2, 2 * batch_size // workers) if workers else None,
        collate_fn=_as_it_is,
    )
    writing: deque[Future[None]] = deque()
    with _Progress(labeler.modality, len(images), len(names)) as progress, ThreadPoolExecutor(max(1, workers)) as pool:
        for batch in _batches(_readable(reader, source, on_error, progress), batch_size):
            maps = labeler(torch.stack([image.pixels for image in batch]), [image.size for image in batch])
            for image, map_ in zip(batch, maps, strict=True):
                writing.append(pool.submit(_write, folder / map_of(image.name), labeler, map_))
            while writing and (writing[0].done() or len(writing) > _held(batch_size)):
                writing.popleft().result()
                progress.advance()
        for written in writing:
            written.result()
            progress.advance()


def map_of(image: str) -> str:
    """Path of an image's map in the folder of the maps."""
    return f"{image.rpartition('.')[0]}.png"


def rank() -> int:
    """Number of this process among those that torchrun started."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """Number of processes that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def _without_map(images: Iterable[str], folder: Path) -> list[str]:
    there = {
        f"{class_.name}/{map_.name}" for class_ in os.scandir(folder) if class_.is_dir() for map_ in os.scandir(class_)
    }
    return [image for image in images if map_of(image) not in there]


def _held(batch_size: int) -> int:
    """Most images that wait for others of their size, and most maps that wait to be written."""
    return max(64, 2 * batch_size)


class _Read(NamedTuple):
    """A preprocessed image, or the reason why it cannot be read."""

    name: str
    size: Size = (0, 0)
    pixels: Tensor = torch.empty(0)
    error: str | None = None


class _Images(Dataset[_Read]):
    """Reads images by their names."""

    def __init__(self, source: Path, processor: Any) -> None:
        self.source = source
        self.processor = processor

    def __getitem__(self, name: str) -> _Read:
        try:
            with open_image(self.source / name) as file:
                colors = Rgb().decode(file).as_subclass(Tensor)
        except DAMAGED as error:
            return _Read(name, error=str(error))
        inputs = self.processor(images=colors, input_data_format="channels_first", return_tensors="pt")
        return _Read(name, (colors.shape[1], colors.shape[2]), inputs["pixel_values"][0])


def _as_it_is(read: Any) -> Any:
    return read


def _readable(images: Iterable[_Read], source: Path, on_error: OnError, progress: "_Progress") -> Iterator[_Read]:
    for image in images:
        if image.error is None:
            yield image
        elif on_error == "raise":
            raise ValueError(
                f"Expected an image in {source / image.name}: {image.error}. Replace it, or use on_error skip."
            )
        else:
            progress.skip(f"{source / image.name}: {image.error}")


def _batches(images: Iterable[_Read], batch_size: int) -> Iterator[list[_Read]]:
    """Batches of images of the same processed size; images of rare sizes wait for others, up to a limit."""
    waiting: defaultdict[Size, list[_Read]] = defaultdict(list)
    held = 0
    for image in images:
        size = (image.pixels.shape[1], image.pixels.shape[2])
        waiting[size].append(image)
        held += 1
        too_many = held == _held(batch_size)
        if too_many:
            size = max(waiting, key=lambda size: len(waiting[size]))
        if too_many or len(waiting[size]) == batch_size:
            batch = waiting.pop(size)
            held -= len(batch)
            yield batch
    yield from waiting.values()


def _write(path: Path, labeler: Labeler, map_: NDArray[Any]) -> None:
    """Write a map atomically. No two processes write the same file."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as unfinished:
        # The lowest compression: depth needs half the time of the default and 7 % more space.
        Image.fromarray(labeler.encode(map_)).save(unfinished, format="PNG", compress_level=1)


class _Progress:
    """Progress of the first process, a bar on a terminal or a line every 30 s, and skipped files of all processes."""

    def __init__(self, modality: str, images: int, left: int) -> None:
        self._title = modality if processes() == 1 else f"{modality}, process {rank()} of {processes()}"
        self._images = images
        self._left = left
        self._done = self._skipped = 0
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:.1f} images/s"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (rank() == 0 and self._console.is_terminal),
        )
        self._task = self._bar.add_task(self._title, total=images, completed=images - left, speed=0.0)
        self._begin = self._last_line = time.perf_counter()

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        if error is None and (rank() == 0 or self._skipped):
            skipped = f", {self._skipped:,} skipped" if self._skipped else ""
            self._say(f"{self._title}: {self._images - self._skipped:,} of {self._images:,} images{skipped}")

    def skip(self, reason: str) -> None:
        self._skipped += 1
        self._say(f"Skipped {reason}")

    def advance(self) -> None:
        self._done += 1
        now = time.perf_counter()
        speed = self._done / (now - self._begin)
        self._bar.update(self._task, advance=1, speed=speed)
        if rank() == 0 and not self._console.is_terminal and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            done = self._images - self._left + self._done
            left = timedelta(seconds=round((self._left - self._skipped - self._done) / speed))
            self._say(f"{self._title}: {done:,} of {self._images:,} images, {speed:.1f} images/s, {left} left")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False)
