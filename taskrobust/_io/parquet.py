"""Images with classes in a parquet file, as the Hugging Face Hub stores CIFAR-10."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from taskrobust._io.damage import damage_named

_IMAGE: Final = ("img", "image")
_LABEL: Final = "label"


@dataclass(frozen=True)
class ParquetImages:
    """Encoded images and their classes.

    Attributes:
        column: Name of the column of the images.
        labels: Classes, int64 [n].
    """

    column: str
    _images: Any
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, row: int) -> bytes:
        """The bytes of an image file; empty if the row has none."""
        content: bytes | None = self._images[row].as_py()
        return content or b""


def read_parquet_images(file: Path, num_classes: int) -> ParquetImages:
    """Read the columns ``img`` (or ``image``), a struct with ``bytes``, and ``label``.

    Args:
        file: The parquet file.
        num_classes: Number of classes.

    Raises:
        ValueError: If the file is damaged, lacks a column, or holds a label out of range.
    """
    with damage_named(file, "a parquet file, perhaps truncated,"):
        table = pq.read_table(file)
    image = next((name for name in _IMAGE if name in table.column_names), _IMAGE[0])
    for column in (image, _LABEL):
        if column not in table.column_names:
            raise ValueError(f"Expected a column {column!r} in {file}, got {table.column_names}.")
    kind = table.schema.field(image).type
    if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise ValueError(f"Expected images as bytes in column {image!r} of {file}, got {kind}.")
    images = pc.struct_field(table.column(image), "bytes")
    return ParquetImages(image, images, _labels(table.column(_LABEL), file, num_classes))


def _labels(column: Any, file: Path, num_classes: int) -> NDArray[np.int64]:
    if not pa.types.is_integer(column.type):
        raise ValueError(f"Expected whole numbers in column {_LABEL!r} of {file}, got {column.type}.")
    labels: NDArray[np.int64] = column.fill_null(-1).to_numpy().astype(np.int64)
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"Expected labels from 0 to {num_classes - 1}, got {column[row].as_py()} in row {row} (from 0), column "
            f"{_LABEL!r} of {file}."
        )
    return labels
