"""The base classes of image data: files of an image and its maps are decoded and cropped to a sample."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from taskrobust.training.data import Key
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torchvision.tv_tensors import TVTensor

Sample = dict[str, Tensor]
"""The packed maps of an image by modality, and its class as "label" if it has one."""

OnError = Literal["raise", "skip"]

_log = logging.getLogger(__name__)

DAMAGED: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Errors of Pillow for a file that is not an image or is truncated."""

_FIRST_LINES: Final = 10

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")
"""The formats that are read. Those that start other programs, such as EPS, are not, whatever the name of the file."""

_MOST_PIXELS: Final = 1 << 26


def open_image(source: Any) -> Image.Image:
    """Open an image file that others may have made.

    Args:
        source: A path or an open file.

    Raises:
        OSError: If it is of none of the formats, damaged, or has more than 2²⁶ pixels, which would fill the memory.
    """
    image = Image.open(source, formats=_FORMATS)
    if image.width * image.height > _MOST_PIXELS:
        image.close()
        raise OSError(f"it has {image.width} x {image.height} pixels, more than {_MOST_PIXELS:,}")
    return image


class MapFile(NamedTuple):
    """A file that holds a map.

    Attributes:
        modality: Name of its modality.
        name: Its name in errors.
        source: Its path or its content.
    """

    modality: str
    name: str
    source: str | BytesIO


class Images(ABC):
    """Images with maps, read by (index, epoch) keys.

    Your own data set of image files derives from ``ImageMaps`` and implements three methods: ``__len__``, ``files`` and
    ``label``. Data in another form derive from this class and implement ``__len__`` and ``__getitems__``. Both set
    ``name``.

    Attributes:
        name: Name of the data in results, such as nyuv2.
        unreadable: The maps that were skipped so far because they cannot be read, bool [samples, modalities], shared by
            all workers. None if an unreadable map is an error.
    """

    name: str
    unreadable: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Key, Sample]]:
        """The keys (index, epoch) and their samples.

        Raises:
            IndexError: If an index is negative or not below the number of samples.
        """

    def __getitem__(self, index: int) -> Sample:
        """One sample, decoded and transformed as in epoch 0.

        Raises:
            IndexError: If the index is negative or not below the number of samples.
        """
        return self.__getitems__([(index, 0)])[0][1]

    @property
    def skipped(self) -> int:
        """Number of unreadable files that were skipped so far, in all workers of this process."""
        return 0 if self.unreadable is None else int(self.unreadable.sum())


class ImageMaps(Images):
    """Images with maps in files.

    Args:
        modalities: The modalities by name. Those that only predict are not read.
        transform: Crops the maps of a sample.
        on_error: How to treat a file that cannot be read as an image. ``raise`` an error that names it, or ``skip`` it:
            the sample lacks the map, and the file is logged and counted in ``skipped``. A readable file with other
            content, such as a label out of range, is always an error.

    Example:
        Images without maps or classes, from a list of paths::

            class Photos(ImageMaps):
                name = "photos"

                def __init__(self, modalities, transform, *, paths):
                    super().__init__(modalities, transform, on_error="raise")
                    self.paths = paths

                def __len__(self):
                    return len(self.paths)

                def files(self, index):
                    yield MapFile("rgb", self.paths[index], self.paths[index])

                def label(self, index):
                    return None
    """

    def __init__(self, modalities: Mapping[str, Modality], transform: Transform, on_error: OnError) -> None:
        self.modalities = {name: modality for name, modality in modalities.items() if modality.source is None}
        self.transform = transform
        self.on_error = on_error

    @abstractmethod
    def files(self, index: int) -> Iterator[MapFile]:
        """The files of a sample, one per modality that it has."""

    @abstractmethod
    def label(self, index: int) -> int | None:
        """Class of the image, None if it has none."""

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Key, Sample]]:
        """The samples with the given keys (index, epoch).

        Raises:
            ValueError: If a file is damaged or holds something other than its modality expects.
            IndexError: If an index is negative or not below the number of samples.
        """
        return [(key, self._sample(key)) for key in keys]

    def _share_count(self) -> None:
        """Allocate the marks of skipped files in shared memory, once the number of samples is known."""
        if self.on_error == "skip":
            marks = torch.zeros(len(self), len(self.modalities), dtype=torch.bool)
            self.unreadable = marks.share_memory_()  # type: ignore[no-untyped-call]

    def _sample(self, key: Key) -> Sample:
        index = key[0]
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}, got {index}.")
        maps: dict[str, TVTensor] = {}
        for file in self.files(index):
            image = self._read(file, index)
            if image is not None:
                try:
                    maps[file.modality] = self._decode(file.modality, image)
                except ValueError as error:
                    raise ValueError(f"{file.name} holds no {file.modality} map. {error}") from error
        crops = self.transform(maps, key) if maps else {}
        sample = {name: self.modalities[name].pack(crop) for name, crop in crops.items()}
        label = self.label(index)
        return sample if label is None else {**sample, "label": torch.tensor(label)}

    def _read(self, file: MapFile, index: int) -> Image.Image | None:
        try:
            with open_image(file.source) as image:
                image.load()
                return image
        except DAMAGED as error:
            if self.unreadable is None:
                raise ValueError(
                    f"{file.name} cannot be read as an image (is it truncated?): {error}. Replace it, or skip such "
                    "files with on_error='skip'."
                ) from error
            self._leave_out(file, index, error)
            return None

    def _leave_out(self, file: MapFile, index: int, error: Exception) -> None:
        assert self.unreadable is not None
        place = (index, list(self.modalities).index(file.modality))
        if self.unreadable[place]:
            return
        self.unreadable[place] = True
        count = self.skipped
        if count <= _FIRST_LINES or count.bit_count() == 1:  # then at 16, 32, 64, ...
            _log.warning("Left out %s: %s. %d files so far.", file.name, error, count)

    def _decode(self, modality: str, image: Image.Image) -> "TVTensor":
        return self.modalities[modality].decode(image)


def report_unreadable(name: str, images: Images, accelerator: "Accelerator") -> None:
    """Print the number of files that could not be read, over all ranks. Called by all ranks."""
    if images.unreadable is not None:
        on_ranks = accelerator.reduce(images.unreadable.int().to(accelerator.device))
        accelerator.print(
            f"Files of {name} images that could not be read and were left out: {int((on_ranks > 0).sum())}."
        )
