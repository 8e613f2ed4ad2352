"""Converts NYU Depth v2 from MATLAB files to folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

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
    as 0 for unlabeled and 1 to 40, for ``SemSeg(num_classes=40, reduce_zero_label=True)``. Depths that are not numbers
    between 0 and 65.535 meters are stored as 0, which is a missing value. An interrupted call resumes when repeated.

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
        number_of_images = _check_content(file, labeled)
        # MATLAB's arrays are stored by columns: [N, (3,) W, H].
        readers: dict[str, Callable[[int], NDArray[np.generic]]] = {
            "rgb": lambda image: file["images"][image].T,
            "depth": lambda image: _millimeters(file["depths"][image].T),
            "semseg": lambda image: class_of_label[file["labels"][image].T],
        }
        for split, images in numbers.items():
            outside = images[(images < 1) | (images > number_of_images)]
            if outside.size:
                raise ValueError(
                    f"Expected numbers of images from 1 to {number_of_images} in {_SPLITS[split]} of {splits}, got "
                    f"{outside[0]}."
                )
            for modality in readers:
                (output / split / modality / "all").mkdir(parents=True, exist_ok=True)
                remove_leftovers(output / split / modality / "all")
            for number in track(images.tolist(), split, console=Console(stderr=True)):
                for modality, read in readers.items():
                    path = output / split / modality / "all" / f"{number:04d}.png"
                    if path.exists():
                        continue
                    try:
                        values = read(number - 1)
                    except (OSError, IndexError) as error:
                        raise ValueError(
                            f"Expected the {modality} map of image {number} in {labeled} (labels up to "
                            f"{len(class_of_label) - 1}), it cannot be read: {error}"
                        ) from error
                    with replacing(path) as temporary:
                        Image.fromarray(values).save(temporary, "PNG")


def _check_content(file: Any, path: Path) -> int:
    """The number of images in the MATLAB file."""
    import h5py

    shapes = {"images": (4, np.uint8), "depths": (3, np.floating), "labels": (3, np.integer)}
    number = None
    for name, (dimensions, kind) in shapes.items():
        values = file.get(name)
        if not isinstance(values, h5py.Dataset) or values.ndim != dimensions or not np.issubdtype(values.dtype, kind):
            is_array = isinstance(values, h5py.Dataset)
            got = f"{values.dtype} of shape {values.shape}" if is_array else "none" if values is None else "a group"
            raise ValueError(
                f"Expected {name} of {dimensions} dimensions and {kind.__name__} values in {path}, got {got}."
            )
        number = len(values) if number is None else number
        if len(values) != number:
            raise ValueError(f"Expected {name} of {number} images in {path}, as there are images, got {len(values)}.")
    assert number is not None
    return number


def _millimeters(meters: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Depth as 16-bit millimeters, 0 where there is no value between 0 and 65.535 m."""
    millimeters = np.rint(np.nan_to_num(meters, nan=0.0, posinf=0.0, neginf=0.0) * _MILLIMETERS)
    return np.where((millimeters >= 0) & (millimeters <= np.iinfo(np.uint16).max), millimeters, 0).astype(np.uint16)


def _numbers(path: Path, name: str) -> NDArray[np.int64]:
    """A variable of a MATLAB file."""
    from scipy.io import loadmat

    try:
        variables = loadmat(path, variable_names=[name])
    except Exception as error:  # scipy raises errors of many kinds on a damaged file
        raise ValueError(f"Expected a MATLAB file of a version before 7.3, {path} cannot be read: {error}") from error
    if name not in variables:
        raise ValueError(f"Expected a variable {name!r} in {path}, found none.")
    numbers = np.asarray(variables[name]).ravel()
    if not np.issubdtype(numbers.dtype, np.number):
        raise ValueError(f"Expected numbers as {name!r} in {path}, got {numbers.dtype}.")
    return numbers.astype(np.int64)
