"""Converts NYU Depth v2 from MATLAB files to folders."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from taskrobust._io.atomic import remove_leftovers, replacing

_SPLITS: Final = {"train": "trainNdxs", "val": "testNdxs"}
_MILLIMETERS: Final = 1000


def write_nyuv2(labeled: Path, splits: Path, class_mapping: Path, output: Path) -> None:
    """Write the 1,449 labeled images of NYU Depth v2 as ``output/{train,val}/{rgb,depth,semseg}/all/NNNN.png``.

    The official split has 795 images for training and 654 for testing, here ``val``. NNNN is the number of the image
    from 1. Colors are stored without loss, the filled-in depth as 16-bit millimeters, for ``Depth()``, and the labels
    as 0 for unlabeled and 1 to 40, for ``SemSeg(num_classes=40, reduce_zero_label=True)``. An interrupted call
    resumes when repeated.

    Args:
        labeled: nyu_depth_v2_labeled.mat, of MATLAB's version 7.3.
        splits: splits.mat, with the numbers of the images in trainNdxs and testNdxs.
        class_mapping: classMapping40.mat, with the class of each of the 894 labels in mapClass.
        output: Folder to write to.

    Raises:
        ValueError: If a file is damaged or has other content.

    References:
        Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012.
        Gupta et al., Perceptual Organization and Recognition of Indoor Scenes from RGB-D Images, CVPR 2013 (classes).
    """
    import h5py  # slow to import

    class_of_label = np.append(0, _numbers(class_mapping, "mapClass")).astype(np.uint8)
    numbers = {split: _numbers(splits, name) for split, name in _SPLITS.items()}
    try:
        file = h5py.File(labeled, "r")
    except OSError as error:
        raise ValueError(f"Expected a MATLAB file of version 7.3, {labeled} cannot be read: {error}") from error
    with file:
        lacking = {"images", "depths", "labels"} - file.keys()
        if lacking:
            raise ValueError(f"Expected images, depths and labels in {labeled}, it has no {sorted(lacking)}.")
        # MATLAB's arrays are stored by columns: [N, (3,) W, H].
        readers: dict[str, Callable[[int], NDArray[np.generic]]] = {
            "rgb": lambda image: file["images"][image].T,
            "depth": lambda image: np.rint(file["depths"][image].T * _MILLIMETERS).astype(np.uint16),
            "semseg": lambda image: class_of_label[file["labels"][image].T],
        }
        for split, images in numbers.items():
            for modality in readers:
                (output / split / modality / "all").mkdir(parents=True, exist_ok=True)
                remove_leftovers(output / split / modality / "all")
            for number in track(images.tolist(), split, console=Console(stderr=True)):
                for modality, read in readers.items():
                    path = output / split / modality / "all" / f"{number:04d}.png"
                    if not path.exists():
                        with replacing(path) as temporary:
                            Image.fromarray(read(number - 1)).save(temporary, "PNG")


def _numbers(path: Path, name: str) -> NDArray[np.int64]:
    """A variable of a MATLAB file."""
    from scipy.io import loadmat

    try:
        variables = loadmat(path, variable_names=[name])
    except (OSError, ValueError, TypeError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"Expected a MATLAB file of a version before 7.3, {path} cannot be read: {error}") from error
    if name not in variables:
        raise ValueError(f"Expected a variable {name!r} in {path}, found none.")
    return np.asarray(variables[name]).ravel().astype(np.int64)
