"""ImageNet with pseudo-labels, and its subset with segmentations by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from PIL import Image

from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import MAY_CHANGE
from taskrobust.vision.data.base import OnError
from taskrobust.vision.data.folders import PairedFolders
from taskrobust.vision.data.listing import Missing
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor

_IGNORED: Final = 1000
_VOID: Final = 255


class ImageNet(PairedFolders):
    """ImageNet-1K, or ImageNet-S without its segmentation: ``root/split/wnid/*.JPEG``, with maps made by models.

    The images are the modality ``rgb``, the maps are in ``pseudo_labels/split/modality/wnid/*.png``: the
    output of ``taskrobust pseudo-label --source root/split --output pseudo_labels/split``.

    Args:
        modalities: The modalities by name, ``rgb`` among them. Those that only predict are not read.
        transform: Crops the maps of a sample.
        root: Folder of the splits. Environment variables are filled in, here and below.
        split: Name of the folder in it, such as train or val. The validation images need a folder per class, too.
        pseudo_labels: Folder of the maps of the other modalities, if there are any.
        missing: Whether samples without one of the modalities are an error or are allowed (``absent``).
        on_error: How to treat a file that cannot be read as an image: ``raise`` an error that names it, or ``skip`` it,
            so that the sample lacks the map, and count it.
        part: The samples to use, from one place in [0, 1) up to another, such as (0, 0.9) to train and (0.9, 1) to
            select a model. The place of a sample is a hash of its class folder and stem; other files do not change it.

    Raises:
        ValueError: If there is nothing, a modality has two files of the same stem, or lacks one of another's, or if
            ``part`` is no range within [0, 1] or holds no sample.

    References:
        Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        root: Annotated[Path, MAY_CHANGE],
        split: str = "train",
        pseudo_labels: Annotated[Path | None, MAY_CHANGE] = None,
        missing: Missing = "error",
        on_error: Annotated[OnError, MAY_CHANGE] = "raise",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        folders = {"rgb": Path(expand_variables(root)) / split}
        if pseudo_labels is not None:
            maps = [name for name, modality in modalities.items() if modality.source is None and name != "rgb"]
            folders |= {name: Path(expand_variables(pseudo_labels)) / split / name for name in maps}
        super().__init__(modalities, transform, folders=folders, missing=missing, on_error=on_error, part=part)
        self.name = Path(expand_variables(root)).absolute().name


class ImageNetS50(PairedFolders):
    """ImageNet-S with 50 classes segmented by hand: ``root/split/wnid/*.JPEG`` and ``root/split-segmentation/wnid``.

    The images are the modality ``rgb``, the segmentations ``semseg``, for ``SemSeg(num_classes=51)``: 0
    is anything else, 1 to 50 are the classes in the order of their WordNet ids, and parts to be ignored are void.

    Args:
        modalities: The modalities by name: ``rgb``, ``semseg`` or both.
        transform: Crops the maps of a sample.
        root: The folder ImageNetS50. Environment variables are filled in.
        split: ``train-semi`` (500 images) or ``validation`` (752 images). For ``train``, without segmentation, see
            ``ImageNet``.
        on_error: How to treat a file that cannot be read as an image: ``raise`` an error that names it, or ``skip`` it,
            so that the sample lacks the map, and count it.
        part: The samples to use, from one place in [0, 1) up to another, such as (0, 0.9) to train and (0.9, 1) to
            select a model. The place of a sample is a hash of its class folder and stem; other files do not change it.

    Raises:
        ValueError: If there is nothing, a modality has two files of the same stem, or lacks one of another's, or if
            ``part`` is no range within [0, 1] or holds no sample.

    References:
        Gao et al., Large-scale Unsupervised Semantic Segmentation, TPAMI 2022.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        transform: Transform,
        *,
        root: Annotated[Path, MAY_CHANGE],
        split: str = "train-semi",
        on_error: Annotated[OnError, MAY_CHANGE] = "raise",
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        root = Path(expand_variables(root))
        folders = {"rgb": root / split, "semseg": root / f"{split}-segmentation"}
        folders = {name: folder for name, folder in folders.items() if name in modalities}
        super().__init__(modalities, transform, folders=folders, on_error=on_error, part=part)
        self.name = root.absolute().name

    def _decode(self, modality: str, image: Image.Image) -> "TVTensor":
        return super()._decode(modality, _labels(image) if modality == "semseg" else image)


def _labels(colors: Image.Image) -> Image.Image:
    """The labels, red + 256 · green in the files, as bytes, with 255 for pixels to ignore.

    Raises:
        ValueError: If a label is neither a byte nor to be ignored.
    """
    red, green, _ = np.moveaxis(np.asarray(colors.convert("RGB")).astype(np.int64), 2, 0)
    labels = red + 256 * green
    labels[labels == _IGNORED] = _VOID
    if labels.max() > _VOID:
        raise ValueError(f"Expected labels of 50 classes, 0 or 1000, got {labels.max()}.")
    return Image.fromarray(labels.astype(np.uint8))
