"""Images and maps in tar shards."""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from taskrobust._io.atomic import checksum
from taskrobust._io.manifest import Manifest
from taskrobust._io.paths import expand_variables
from taskrobust._random import random_bits, uniform
from taskrobust.vision.data.base import ImageMaps, MapFile, OnError
from taskrobust.vision.data.listing import Missing
from taskrobust.vision.data.part import in_part
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

MANIFEST: Final = Manifest(file="shards.json", kind="shards", format=1, command="shards --source FOLDER --output")
LABEL: Final = "cls"
"""Field of the class's index in a shard."""


class ImageShards(ImageMaps):
    """The shards that ``taskrobust shards`` wrote, in the order of the folders that they were made from.

    The first use copies the content of the shards into an Arrow file, by the webdataset reader of ``datasets``; it is
    mapped into memory and samples are read in any order. Sizes of the shards are checked at every start, checksums
    before the copy is made.

    Args:
        modalities: The modalities by name. Those that only predict are not read.
        transform: Crops the maps of a sample.
        folder: The folder with the shards. Environment variables are filled in, here and in ``cache``.
        cache: Folder of the Arrow file, which needs as much room as the shards. None takes that of ``datasets``.
        missing: Whether samples that lack a modality are an error or ``absent`` belongs to the data.
        on_error: What a file does that cannot be read as an image: ``raise`` an error that names it, or ``skip``: the
            sample is without it, and the file is counted.
        num_proc: Processes that make the copy.
        part: From where up to where in [0, 1) the samples lie that are taken, such as (0, 0.9) to train and (0.9, 1) to
            select a model. A sample's place is that of the folders that the shards were made from.

    Raises:
        ValueError: If the folder holds no finished shards, one is damaged, or samples lack a modality, or if ``part``
            is no range within [0, 1] or holds no sample.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        folder: Path,
        cache: Path | None = None,
        missing: Missing = "error",
        on_error: OnError = "raise",
        num_proc: int = 1,
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(modalities, transform, on_error)
        self.folder = Path(expand_variables(folder))
        self.name = "/".join(self.folder.absolute().parts[-2:])
        manifest = MANIFEST.read_complete(self.folder)
        files = {name: manifest["modalities"].get(name, {"files": 0, "fields": []}) for name in self.modalities}
        lacking = [name for name, entry in files.items() if entry["files"] < manifest["samples"]]
        if missing == "error" and lacking:
            raise ValueError(
                f"Expected {list(self.modalities)} in each of the {manifest['samples']} samples of {folder}, "
                f"{lacking[0]} is in {files[lacking[0]]['files']}. Take such samples as they are with missing='absent'."
            )
        self.classes: list[str] = manifest["classes"]
        self._fields = {name: entry["fields"] for name, entry in files.items()}
        all_fields = [field for entry in manifest["modalities"].values() for field in entry["fields"]]
        rows = self._load(manifest["shards"], all_fields, cache, num_proc)
        assert len(rows) == manifest["samples"], f"{folder} holds {len(rows)} samples, not {manifest['samples']}"
        self._labels = rows.data.column(LABEL).to_numpy() if self.classes else None
        if part != (0, 1):
            kept = in_part(_places(rows.data.column("__key__").to_pylist()), part)
            rows = rows.select(kept)
            self._labels = None if self._labels is None else self._labels[kept]
        self._rows = rows.select_columns([*(field for fields in self._fields.values() for field in fields), "__url__"])
        self._share_count()

    def __len__(self) -> int:
        return len(self._rows)

    def _files(self, index: int) -> Iterator[MapFile]:
        row = self._rows[index]
        for modality, fields in self._fields.items():
            for field in fields:
                if row[field] is not None:
                    yield MapFile(modality, f"{row['__url__']}:{row[field]['path']}", BytesIO(row[field]["bytes"]))

    def _label(self, index: int) -> int | None:
        return None if self._labels is None else int(self._labels[index])

    def _load(self, shards: list[dict[str, Any]], fields: list[str], cache: Path | None, num_proc: int) -> Any:
        from datasets import Features, Image, Value, load_dataset_builder  # takes a second to import

        for shard in shards:
            _check_size(self.folder / shard["file"], shard)
        features = {field: Image(decode=False) for field in fields}
        features |= {LABEL: Value("int64")} if self.classes else {}
        features |= {"__key__": Value("string"), "__url__": Value("string")}
        builder = load_dataset_builder(
            "webdataset",
            data_files={"train": [str((self.folder / shard["file"]).absolute()) for shard in shards]},
            features=Features(features),
            cache_dir=None if cache is None else expand_variables(cache),
        )
        if not Path(builder.cache_dir).exists():
            for shard in shards:
                _check_content(self.folder / shard["file"], shard)
        builder.download_and_prepare(num_proc=num_proc)
        return builder.as_dataset("train")


def _places(keys: Iterable[str]) -> NDArray[np.float64]:
    """Where in [0, 1) samples lie, by their keys class/stem: where ``Listing`` has them."""
    classes_and_stems = (key.rpartition("/") for key in keys)
    sums = (zlib.crc32(os.fsencode(f"{class_}/{unquote(stem)}")) for class_, _, stem in classes_and_stems)
    return uniform(random_bits(np.fromiter(sums, np.uint64), 0))


_REPAIR: Final = "Copy it again, or delete it and run the `taskrobust shards` command again: the others are kept."


def _check_size(path: Path, shard: Mapping[str, Any]) -> None:
    if not path.exists():
        raise ValueError(f"The shard {path} is missing. {_REPAIR}")
    size = path.stat().st_size
    if size != shard["bytes"]:
        raise ValueError(f"The shard {path} is damaged: it has {size} of {shard['bytes']} bytes. {_REPAIR}")


def _check_content(path: Path, shard: Mapping[str, Any]) -> None:
    if checksum(path) != shard["crc32"]:
        raise ValueError(f"The shard {path} is damaged: it has other content than was written. {_REPAIR}")
