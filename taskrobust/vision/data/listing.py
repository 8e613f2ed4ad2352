"""Finds and pairs the files of a data set, and selects a part of it."""

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from taskrobust._random import random_bits, uniform

Missing = Literal["error", "absent"]

_ABSENT: Final = 255


class Listing:
    """The files of several folders of class folders, paired by class folder and stem.

    ``folder/class/stem.suffix`` of one folder and ``folder/class/stem.suffix`` of another are maps of the same image.
    Files with other suffixes and hidden files are ignored. Samples are sorted by class folder and stem. A sample needs
    some tens of bytes, in arrays that worker processes share.

    Args:
        folders: The folders by modality.
        suffixes: The file name extensions of each modality, in lower case and with the dot; case is ignored.
        missing: Whether samples without one of the modalities are an error or are allowed (``absent``).
        part: The samples to keep, from one place in [0, 1) up to another. The place of a sample is a hash of its class
            folder and stem.

    Raises:
        ValueError: If there is nothing, a modality has two files of the same stem, or lacks one of another's, or if
            ``part`` is no range within [0, 1] or holds no sample.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        suffixes: Mapping[str, tuple[str, ...]],
        missing: Missing = "error",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.folders = dict(folders)
        self._suffixes: list[str] = []  # as they are on the disk
        classes = {name: _classes(folder) for name, folder in folders.items()}
        self.classes = sorted(set().union(*classes.values()))
        blocks = [self._pair(class_, classes, suffixes) for class_ in self.classes]
        sizes = [len(stems) for stems, _ in blocks]
        if sum(sizes) == 0:
            described = ", ".join(f"{folder}/CLASS/*{'|'.join(suffixes[name])}" for name, folder in folders.items())
            raise ValueError(f"Expected images in {described}, found none. CLASS may be `all` if there are no classes.")
        self._ends = np.cumsum(sizes)
        self._stems: NDArray[np.bytes_] = np.concatenate([stems for stems, _ in blocks])
        order = np.argsort(self._suffixes)
        self._suffixes.sort()
        places = np.append(np.argsort(order), [_ABSENT] * (256 - len(order))).astype(np.uint8)
        self._codes: NDArray[np.uint8] = places[np.concatenate([codes for _, codes in blocks])]
        if missing == "error":
            self._check_complete()
        if tuple(part) != (0, 1):
            self._keep(part)

    def __len__(self) -> int:
        return len(self._stems)

    def class_index(self, sample: int) -> int:
        """Index of a sample's class folder."""
        return int(np.searchsorted(self._ends, sample, side="right"))

    def stem(self, sample: int) -> str:
        """A sample's stem."""
        return os.fsdecode(self._stems[sample])

    def files(self, sample: int) -> Iterator[tuple[str, str]]:
        """The modality and the path of each file of a sample."""
        inner = os.path.join(self.classes[self.class_index(sample)], self.stem(sample))
        for (name, folder), code in zip(self.folders.items(), self._codes[sample].tolist(), strict=True):
            if code != _ABSENT:
                yield name, os.path.join(folder, inner + self._suffixes[code])

    def counts(self) -> dict[str, int]:
        """Number of files of each modality."""
        return dict(zip(self.folders, (self._codes != _ABSENT).sum(0).tolist(), strict=True))

    def checksum(self) -> int:
        """A checksum of the names of all files, relative to the folders."""
        names = "/".join([*self.folders, "", *self.classes, "", *self._suffixes])
        parts = (os.fsencode(names), self._ends.tobytes(), self._stems.tobytes(), self._codes.tobytes())
        return zlib.crc32(b"".join(parts))

    def _pair(
        self, class_: str, classes: Mapping[str, list[str]], suffixes: Mapping[str, tuple[str, ...]]
    ) -> tuple[NDArray[np.bytes_], NDArray[np.uint8]]:
        """The stems of a class folder, ascending [n], and the suffix that each modality has [n, M]."""
        found: dict[bytes, bytearray] = {}
        nothing = bytes([_ABSENT] * len(self.folders))
        for column, (name, folder) in enumerate(self.folders.items()):
            if class_ not in classes[name]:
                continue
            codes: dict[bytes, int | None] = {}
            for file in os.listdir(os.fsencode(folder / class_)):
                stem, dot, suffix = file.rpartition(b".")
                if suffix not in codes:
                    codes[suffix] = self._code(os.fsdecode(dot + suffix), suffixes[name])
                code = codes[suffix]
                if code is None or stem.startswith(b".") or not stem:
                    continue
                row = found.get(stem)
                if row is None:
                    row = found[stem] = bytearray(nothing)
                elif row[column] != _ABSENT:
                    first, second = sorted((self._suffixes[row[column]], self._suffixes[code]))
                    path = folder / class_ / os.fsdecode(stem)
                    raise ValueError(f"Expected one {name} map of an image, got {path}{first} and {path}{second}.")
                row[column] = code
        stems = sorted(found)
        rows = b"".join(found[stem] for stem in stems)
        return np.array(stems, np.bytes_), np.frombuffer(rows, np.uint8).reshape(-1, len(self.folders))

    def _code(self, suffix: str, allowed: tuple[str, ...]) -> int | None:
        if suffix.lower() not in allowed:
            return None
        if suffix not in self._suffixes:
            self._suffixes.append(suffix)
        return self._suffixes.index(suffix)

    def _keep(self, part: tuple[float, float]) -> None:
        kept = np.zeros(len(self), dtype=bool)
        kept[in_part(self._hashes(), part)] = True
        self._ends = np.append(0, np.cumsum(kept))[self._ends]
        self._stems = self._stems[kept]
        self._codes = self._codes[kept]

    def _hashes(self) -> NDArray[np.uint64]:
        """CRC-32 of each class/stem."""
        of_classes = [zlib.crc32(os.fsencode(f"{class_}/")) for class_ in self.classes]
        starts = np.repeat(of_classes, np.diff(self._ends, prepend=0)).tolist()
        return np.fromiter(map(zlib.crc32, self._stems, starts), np.uint64, len(self))

    def _check_complete(self) -> None:
        for (name, folder), codes in zip(self.folders.items(), self._codes.T, strict=True):
            absent = np.flatnonzero(codes == _ABSENT)
            if len(absent):
                first = int(absent[0])
                _, other = next(self.files(first))
                raise ValueError(
                    f"Expected a {name} map of each of the {len(self)} images, {len(absent)} have none in {folder}. "
                    f"The first is {self.classes[self.class_index(first)]}/{self.stem(first)}, which has {other}. "
                    "Add the files, or accept such samples with missing='absent'."
                )


def in_part(names: NDArray[np.uint64], part: tuple[float, float]) -> NDArray[np.int64]:
    """The samples that lie in a part of a data set, ascending.

    Args:
        names: A number that identifies each sample. A hash of it is the place of the sample in [0, 1), the same on
            every machine.
        part: The places, from one up to another.

    Raises:
        ValueError: If the part is no range within [0, 1] or holds no sample.
    """
    if not 0 <= part[0] < part[1] <= 1:
        raise ValueError(f"Expected a part from one number in [0, 1] up to a larger one, got {part}.")
    places = uniform(random_bits(names, 0))
    samples = np.flatnonzero((part[0] <= places) & (places < part[1]))
    if not len(samples):
        raise ValueError(f"Expected images in the part {part}, all {len(places)} lie outside. Use a larger one.")
    return samples


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
