"""From the files of an image and its maps to a sample: what folders and shards have in common."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from taskrobust.training.sampling import Key
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torchvision.tv_tensors import TVTensor

Sample = dict[str, Tensor]
"""What a batch holds of each map that the sample has, by modality, and the image's class as "label" if it has one."""

OnError = Literal["raise", "skip"]

_log = logging.getLogger(__name__)

DAMAGED: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no image, or not a whole one."""

_FIRST_LINES: Final = 10


class MapFile(NamedTuple):
    """A file that holds a map.

    Attributes:
        modality: Name of its modality.
        name: What an error calls it.
        source: Its path, or its content.
    """

    modality: str
    name: str
    source: str | BytesIO


class Images(ABC):
    """Images with maps of them, read by (index, epoch) keys."""

    name: str
    """What results call the data, such as nyuv2."""

    unreadable: Tensor | None = None
    """Which maps were left out so far as they cannot be read, bool [samples, modalities], shared by all workers; None
    where that is an error."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Key, Sample]]:
        """The samples with the given keys."""

    @property
    def skipped(self) -> int:
        """Number of files that could not be read and were left out so far, in all workers of this process."""
        return 0 if self.unreadable is None else int(self.unreadable.sum())


class ImageMaps(Images):
    """Images with maps of them in files.

    Args:
        modalities: The modalities by name. Those that only predict are not read.
        transform: Crops the maps of a sample.
        on_error: What a file does that cannot be read as an image. ``raise`` ends with an error that names it.
            ``skip`` leaves its map out, so that the sample has one less; such files are counted in ``skipped`` and
            logged as they are met. A file that can be read and holds something else, such as a label out of range, is
            an error in any case.
    """

    def __init__(self, modalities: Mapping[str, Modality], transform: Transform, on_error: OnError) -> None:
        self.modalities = {name: modality for name, modality in modalities.items() if modality.source is None}
        self.transform = transform
        self.on_error = on_error

    @abstractmethod
    def _files(self, index: int) -> Iterator[MapFile]:
        """The files of a sample, one for each modality that it has."""

    @abstractmethod
    def _label(self, index: int) -> int | None:
        """Class of the image."""

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Key, Sample]]:
        """The samples with the given keys (index, epoch).

        Raises:
            ValueError: If a file is damaged or holds something else than its modality expects.
            IndexError: If an index is not below the number of samples.
        """
        return [(key, self._sample(key)) for key in keys]

    def _share_count(self) -> None:
        """Called when the number of samples is known: workers mark in shared memory which files they leave out."""
        if self.on_error == "skip":
            marks = torch.zeros(len(self), len(self.modalities), dtype=torch.bool)
            self.unreadable = marks.share_memory_()  # type: ignore[no-untyped-call]

    def _sample(self, key: Key) -> Sample:
        index = key[0]
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}, got {index}.")
        maps: dict[str, TVTensor] = {}
        for file in self._files(index):
            image = self._read(file, index)
            if image is not None:
                try:
                    maps[file.modality] = self._decode(file.modality, image)
                except ValueError as error:
                    raise ValueError(f"{file.name} holds no {file.modality} map. {error}") from error
        crops = self.transform(maps, key) if maps else {}
        sample = {name: self.modalities[name].pack(crop) for name, crop in crops.items()}
        label = self._label(index)
        return sample if label is None else {**sample, "label": torch.tensor(label)}

    def _read(self, file: MapFile, index: int) -> Image.Image | None:
        try:
            with Image.open(file.source) as image:
                image.load()
                return image
        except DAMAGED as error:
            if self.unreadable is None:
                raise ValueError(
                    f"{file.name} cannot be read as an image, is it whole? {error}. Replace it, or leave such files "
                    "out with on_error='skip'."
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
    """Say how many files of any rank could not be read. Called by all ranks."""
    if images.unreadable is not None:
        on_ranks = accelerator.reduce(images.unreadable.int().to(accelerator.device))
        accelerator.print(
            f"Files of {name} images that could not be read and were left out: {int((on_ranks > 0).sum())}."
        )
