"""Images and maps in Arrow shards."""

import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pyarrow import ArrowException

from taskrobust._io.manifest import Manifest
from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import MAY_CHANGE
from taskrobust.vision.data.base import ImageMaps, MapFile, OnError
from taskrobust.vision.data.listing import Missing, in_part
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

if TYPE_CHECKING:
    from datasets import Dataset

MANIFEST: Final = Manifest(file="shards.json", kind="shards", format=2, command="shards --source FOLDER --output")
KEY: Final = "key"
LABEL: Final = "label"
CHECKSUMS: Final = "crc32"

_REPAIR: Final = "Copy it again, or delete it and run the `taskrobust shards` command again: the others are kept."


class ImageShards(ImageMaps):
    """The shards that ``taskrobust shards`` wrote, in the order of the folders that they were made from.

    Shards are mapped into memory and samples are read in any order. The sizes of the shards are checked at the start,
    the checksum of a file each time it is read.

    Args:
        modalities: The modalities by name. Those that only predict are not read.
        transform: Crops the maps of a sample.
        folder: The folder with the shards. Environment variables are filled in.
        missing: Whether samples without one of the modalities are an error or are allowed (``absent``).
        on_error: How to treat a file that cannot be read as an image: ``raise`` an error that names it, or ``skip`` it,
            so that the sample lacks the map, and count it.
        part: The samples to use, from one place in [0, 1) up to another, such as (0, 0.9) to train and (0.9, 1) to
            select a model. The place of a sample is the same as in the folders that the shards were made from.

    Attributes:
        classes: Names of the classes; empty if the images have none.

    Raises:
        ValueError: If the folder holds no finished shards, one is damaged, or samples lack a modality, or if ``part``
            is no range within [0, 1] or holds no sample.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        folder: Annotated[Path, MAY_CHANGE],
        missing: Missing = "error",
        on_error: Annotated[OnError, MAY_CHANGE] = "raise",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(modalities, transform, on_error)
        self.folder = Path(expand_variables(folder))
        self.name = "/".join(self.folder.absolute().parts[-2:])
        manifest = MANIFEST.read_complete(self.folder)
        counts = {name: manifest["modalities"].get(name, 0) for name in self.modalities}
        lacking = [name for name, count in counts.items() if count < manifest["samples"]]
        if missing == "error" and lacking:
            raise ValueError(
                f"Expected {list(self.modalities)} in each of the {manifest['samples']} samples of {folder}, "
                f"{lacking[0]} is in {counts[lacking[0]]}. Accept such samples with missing='absent'."
            )
        self.classes: list[str] = manifest["classes"]
        self._shards = [self.folder / shard["file"] for shard in manifest["shards"]]
        self._ends = np.cumsum([shard["samples"] for shard in manifest["shards"]])
        self._rows = _open(self._shards, manifest["shards"])
        self._labels = self._rows.data.column(LABEL).to_numpy() if self.classes else None
        self._kept = np.arange(len(self._rows))
        if tuple(part) != (0, 1):
            keys = self._rows.data.column(KEY).to_pylist()
            self._kept = in_part(np.fromiter(map(zlib.crc32, keys), np.uint64, len(keys)), part)
        self._stored = [name for name in self.modalities if name in manifest["modalities"]]
        self._rows = self._rows.select_columns([KEY, *([LABEL] if self.classes else []), *self._stored, CHECKSUMS])
        self._share_count()

    def __len__(self) -> int:
        return len(self._kept)

    def files(self, index: int) -> Iterator[MapFile]:
        """The files of a sample, one per modality that it has."""
        place = int(self._kept[index])
        number = int(np.searchsorted(self._ends, place, side="right"))
        shard, row = self._shards[number], place - int(self._ends[number - 1] if number else 0)
        record = self._rows[place]
        for modality in self._stored:
            if record[modality] is not None:
                content = record[modality]["bytes"]
                if zlib.crc32(content, identity(record[KEY], record.get(LABEL))) != record[CHECKSUMS][modality]:
                    raise ValueError(
                        f"The shard {shard} is damaged: row {row} (from 0) has other content than was written. "
                        f"{_REPAIR}"
                    )
                name = f"{shard}, row {row} (from 0), column {modality!r} ({record[modality]['path']})"
                yield MapFile(modality, name, BytesIO(content))

    def label(self, index: int) -> int | None:
        """Class of the image, None if it has none."""
        return None if self._labels is None else int(self._labels[self._kept[index]])


def identity(key: bytes, label: int | None) -> int:
    """The initial value of the checksums of a sample's files, so that they cover its key and class as well."""
    return zlib.crc32(key, label or 0)


def _open(paths: list[Path], shards: list[dict[str, Any]]) -> "Dataset":
    from datasets import Dataset, concatenate_datasets  # takes a second to import

    parts = []
    for path, shard in zip(paths, shards, strict=True):
        if not path.exists():
            raise ValueError(f"The shard {path} is missing. {_REPAIR}")
        size = path.stat().st_size
        if size != shard["bytes"]:
            raise ValueError(f"The shard {path} is damaged: it has {size} of {shard['bytes']} bytes. {_REPAIR}")
        try:
            part = Dataset.from_file(str(path))
        except (OSError, ArrowException) as error:
            raise ValueError(f"The shard {path} is damaged: {error}. {_REPAIR}") from error
        if len(part) != shard["samples"]:
            raise ValueError(
                f"The shard {path} is damaged: it has {len(part)} of {shard['samples']} samples. {_REPAIR}"
            )
        parts.append(part)
    return concatenate_datasets(parts)
