"""CIFAR-10 in parquet files."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from taskrobust._io.paths import expand_variables
from taskrobust.vision.data.base import ImageMaps, MapFile, OnError
from taskrobust.vision.data.listing import in_part
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

CLASSES: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_IMAGE: Final = ("img", "image")
_LABEL: Final = "label"


class Cifar10(ImageMaps):
    """CIFAR-10 as the hub stores it: ``root/split*.parquet`` with the columns ``img`` (or ``image``) and ``label``.

    Images are the modality ``rgb``, the only one. They are decoded as they are read.

    Args:
        modalities: The modalities by name: ``rgb``, and those that only predict.
        transform: Crops the images.
        root: Folder of the files. Environment variables are filled in.
        split: What the name of the file begins with, such as train or test.
        on_error: What an image does that cannot be read: ``raise`` an error that names its row, or ``skip``: the sample
            is without it, and the image is counted.
        part: From where up to where in [0, 1) the samples lie that are taken, such as (0, 0.9) to train and (0.9, 1) to
            select a model. A sample's place is a hash of its row.

    Attributes:
        classes: Names of the classes.

    Raises:
        ValueError: If there is no such file or several, it is damaged, lacks a column, or a label is none of the ten,
            or if ``part`` is no range within [0, 1] or holds no sample.

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        root: Path,
        split: str = "train",
        on_error: OnError = "raise",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(modalities, transform, on_error)
        if list(self.modalities) != ["rgb"]:
            raise ValueError(f"Expected the modality rgb alone for CIFAR-10, got {list(self.modalities)}.")
        self.name = Path(expand_variables(root)).absolute().name
        self.file = _the_file(Path(expand_variables(root)), split)
        self.classes = list(CLASSES)
        self._column, self._images, self._labels = _read(self.file)
        self._rows = in_part(np.arange(len(self._labels), dtype=np.uint64), part)
        self._share_count()

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}  # a worker process reads the file itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _, self._images, _ = _read(self.file)

    def _files(self, index: int) -> Iterator[MapFile]:
        row = int(self._rows[index])
        name = f"Row {row} (from 0), column {self._column!r} of {self.file}"
        yield MapFile("rgb", name, BytesIO(self._images[row].as_py()))

    def _label(self, index: int) -> int:
        return int(self._labels[self._rows[index]])


def _the_file(root: Path, split: str) -> Path:
    files = sorted(root.glob(f"{split}*.parquet"))
    if len(files) != 1:
        found = f"{len(files)}" if files else "none" if root.is_dir() else "no such folder"
        raise ValueError(f"Expected one file {split}*.parquet in {root}, found {found}.")
    return files[0]


def _read(file: Path) -> tuple[str, Any, NDArray[np.int64]]:
    """Name of the column of the images, their bytes and their labels."""
    try:
        table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"Expected a parquet file, {file} cannot be read (is it truncated?): {error}") from error
    image = next((name for name in _IMAGE if name in table.column_names), _IMAGE[0])
    for column in (image, _LABEL):
        if column not in table.column_names:
            raise ValueError(f"Expected a column {column!r} in {file}, got {table.column_names}.")
    kind = table.schema.field(image).type
    if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise ValueError(f"Expected images as bytes in column {image!r} of {file}, got {kind}.")
    return image, pc.struct_field(table.column(image), "bytes"), _labels(table.column(_LABEL), file)


def _labels(column: Any, file: Path) -> NDArray[np.int64]:
    if not pa.types.is_integer(column.type):
        raise ValueError(f"Expected whole numbers in column {_LABEL!r} of {file}, got {column.type}.")
    labels: NDArray[np.int64] = column.fill_null(-1).to_numpy().astype(np.int64)
    outside = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"Expected labels from 0 to {len(CLASSES) - 1}, got {column[row].as_py()} in row {row} (from 0), column "
            f"{_LABEL!r} of {file}."
        )
    return labels
