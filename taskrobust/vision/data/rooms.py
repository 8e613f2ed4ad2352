from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch

from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import MAY_CHANGE
from taskrobust.synthetic.rooms.store import MANIFEST, RECORDS
from taskrobust.training.data import Key
from taskrobust.vision.data.base import Images, Sample
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor


class Scenes(Images):
    """Generated rooms, mapped into memory: ``rgb``, ``depth``, ``semseg`` (32 labels), and the main object as class.

    Args:
        modalities: The modalities by name, among rgb, depth and semseg. Those that only predict are not read.
        transform: Crops the maps of a sample.
        folder: Folder that ``generate_scenes`` wrote. Environment variables are filled in.

    Attributes:
        classes: Names of the main objects.

    Raises:
        ValueError: If the folder holds no finished rooms, or a modality is not among them.
    """

    def __init__(
        self, modalities: Mapping[str, Modality], transform: Transform, *, folder: Annotated[Path, MAY_CHANGE]
    ) -> None:
        self.folder = Path(expand_variables(folder))
        manifest = MANIFEST.read_complete(self.folder)
        self.name = f"generated rooms ({manifest['options']['domain']})"
        self.classes: list[str] = manifest["classes"]
        self.modalities = {name: modality for name, modality in modalities.items() if modality.source is None}
        self.transform = transform
        self._records = np.load(self.folder / RECORDS, mmap_mode="r")
        unknown = [name for name in self.modalities if name not in _MAPS]
        if unknown:
            raise ValueError(f"Expected modalities among {list(_MAPS)} for generated rooms, got {unknown} as well.")

    def __len__(self) -> int:
        return len(self._records)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None}  # a worker process maps the file itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = np.load(self.folder / RECORDS, mmap_mode="r")

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Key, Sample]]:
        return [(key, self._sample(key)) for key in keys]

    def _sample(self, key: Key) -> Sample:
        if not 0 <= key[0] < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}, got {key[0]}.")
        record = self._records[key[0]]
        crops = self.transform({name: _MAPS[name](record) for name in self.modalities}, key)
        sample = {name: self.modalities[name].pack(crop) for name, crop in crops.items()}
        return sample | {"label": torch.tensor(int(record["label"]))}


def _rgb(record: Any) -> "TVTensor":
    from torchvision import tv_tensors

    return tv_tensors.Image(torch.from_numpy(record["rgb"].transpose(2, 0, 1).copy()))


def _depth(record: Any) -> "TVTensor":
    from torchvision import tv_tensors

    return tv_tensors.Mask(torch.from_numpy(record["depth"].astype(np.float32)[None] / 1000))


def _semseg(record: Any) -> "TVTensor":
    from torchvision import tv_tensors

    return tv_tensors.Mask(torch.from_numpy(record["semseg"][None].copy()))


_MAPS = {"rgb": _rgb, "depth": _depth, "semseg": _semseg}
