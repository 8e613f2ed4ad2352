"""CIFAR-10 in parquet files."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np

from taskrobust._io.parquet import read_parquet_images
from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import MAY_CHANGE
from taskrobust.vision.data.base import ImageMaps, MapFile, OnError
from taskrobust.vision.data.listing import in_part
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

CLASSES: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10(ImageMaps):
    """CIFAR-10 as the hub stores it: ``root/split*.parquet`` with the columns ``img`` (or ``image``) and ``label``.

    Images are the modality ``rgb``, the only one. They are decoded as they are read.

    Args:
        modalities: The modalities by name: ``rgb``, and those that only predict.
        transform: Crops the images.
        root: Folder of the files. Environment variables are filled in.
        split: Beginning of the file's name, such as train or test.
        on_error: How to treat an image that cannot be read: ``raise`` an error that names its row, or ``skip`` it, so
            that the sample lacks it, and count it.
        part: The samples to use, from one place in [0, 1) up to another, such as (0, 0.9) to train and (0.9, 1) to
            select a model. The place of a sample is a hash of its row.

    Attributes:
        classes: Names of the classes.

    Raises:
        ValueError: If there is no such file or several, it is damaged, lacks a column, or has a label out of range,
            or if ``part`` is no range within [0, 1] or holds no sample.

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        root: Annotated[Path, MAY_CHANGE],
        split: str = "train",
        on_error: Annotated[OnError, MAY_CHANGE] = "raise",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(modalities, transform, on_error)
        if list(self.modalities) != ["rgb"]:
            raise ValueError(f"Expected the modality rgb alone for CIFAR-10, got {list(self.modalities)}.")
        self.name = Path(expand_variables(root)).absolute().name
        self.file = _the_file(Path(expand_variables(root)), split)
        self.classes = list(CLASSES)
        self._images = read_parquet_images(self.file, len(CLASSES))
        self._rows = in_part(np.arange(len(self._images), dtype=np.uint64), part)
        self._share_count()

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}  # a worker process reads the file itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._images = read_parquet_images(self.file, len(CLASSES))

    def files(self, index: int) -> Iterator[MapFile]:
        """The files of a sample, one per modality that it has."""
        row = int(self._rows[index])
        name = f"Row {row} (from 0), column {self._images.column!r} of {self.file}"
        yield MapFile("rgb", name, BytesIO(self._images.content(row)))

    def label(self, index: int) -> int:
        """Class of the image."""
        return int(self._images.labels[self._rows[index]])


def _the_file(root: Path, split: str) -> Path:
    files = sorted(root.glob(f"{split}*.parquet"))
    if len(files) != 1:
        found = f"{len(files)}" if files else "none" if root.is_dir() else "no such folder"
        raise ValueError(f"Expected one file {split}*.parquet in {root}, found {found}.")
    return files[0]
