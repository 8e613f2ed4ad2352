"""Images and maps in folders."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import MAY_CHANGE
from taskrobust.vision.data.base import ImageMaps, MapFile, OnError
from taskrobust.vision.data.listing import Listing, Missing
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform


class PairedFolders(ImageMaps):
    """A folder of class folders for each modality, paired by class folder and stem.

    Class folders, sorted by name, are the classes of the images; a single one named ``all`` means that there are none.

    Args:
        modalities: The modalities by name. Those that only predict are not read.
        transform: Crops the maps of a sample.
        folders: The folder of class folders of each available modality.
        missing: Whether samples without one of the modalities are an error or are allowed (``absent``).
        on_error: How to treat a file that cannot be read as an image: ``raise`` an error that names it, or ``skip`` it,
            so that the sample lacks the map, and count it.
        part: The samples to use, from one place in [0, 1) up to another, such as (0, 0.9) to train and (0.9, 1) to
            select a model. The place of a sample is a hash of its class folder and stem; other files do not change it.

    Raises:
        ValueError: If there is nothing, a modality has two files of the same stem, or lacks one of another's, or if
            ``part`` is no range within [0, 1] or holds no sample.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        folders: Mapping[str, Path],
        missing: Missing = "error",
        on_error: Annotated[OnError, MAY_CHANGE] = "raise",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(modalities, transform, on_error)
        unknown = [name for name in folders if name not in self.modalities]
        without = [name for name in self.modalities if name not in folders]
        if unknown or (without and missing == "error"):
            raise ValueError(f"Expected a folder for each of {list(self.modalities)}, got them for {list(folders)}.")
        self._listing = Listing(folders, {name: self.modalities[name].suffixes for name in folders}, missing, part)
        self.name = Path(os.path.commonpath([folder.absolute() for folder in folders.values()])).name
        self.classes = [] if self._listing.classes == ["all"] else self._listing.classes
        """Names of the classes; empty if the images have none."""
        self._share_count()

    def __len__(self) -> int:
        return len(self._listing)

    def files(self, index: int) -> Iterator[MapFile]:
        """The files of a sample, one per modality that it has."""
        return (MapFile(modality, path, path) for modality, path in self._listing.files(index))

    def label(self, index: int) -> int | None:
        """Class of the image, None if it has none."""
        return self._listing.class_index(index) if self.classes else None


class ImageFolders(PairedFolders):
    """The layout ``root/split/modality/class/stem.suffix``, with ``all`` as the class if there are none.

    Args:
        modalities: The modalities by name. Those that only predict are not read.
        transform: Crops the maps of a sample.
        root: The folder. Environment variables are filled in.
        split: Name of the folder in it, such as train or val.
        missing: Whether samples without one of the modalities are an error or are allowed (``absent``).
        on_error: How to treat a file that cannot be read as an image: ``raise`` an error that names it, or ``skip`` it,
            so that the sample lacks the map, and count it.
        part: The samples to use, from one place in [0, 1) up to another, such as (0, 0.9) to train and (0.9, 1) to
            select a model. The place of a sample is a hash of its class folder and stem; other files do not change it.

    Raises:
        ValueError: If there is nothing, a modality has two files of the same stem, or lacks one of another's, or if
            ``part`` is no range within [0, 1] or holds no sample.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        root: Annotated[Path, MAY_CHANGE],
        split: str = "train",
        missing: Missing = "error",
        on_error: Annotated[OnError, MAY_CHANGE] = "raise",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        root = Path(expand_variables(root))
        folders = {name: root / split / name for name, modality in modalities.items() if modality.source is None}
        super().__init__(modalities, transform, folders=folders, missing=missing, on_error=on_error, part=part)
        self.name = root.absolute().name
