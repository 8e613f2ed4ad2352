"""The command that makes depth and class maps for a folder of images with pretrained models."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch

from taskrobust._io.atomic import write_atomically
from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1
from taskrobust.vision.data.base import OnError
from taskrobust.vision.modalities import Rgb
from taskrobust.vision.pseudo_labels.labelers import DepthKind, DepthLabeler, Labeler, Precision, SemSegLabeler

MANIFEST: Final = "pseudo_labels.json"
"""The file that names the models of the maps in a folder."""


def pseudo_label(
    source: Path,
    output: Path,
    *,
    depth_model: str | None = "Intel/dpt-hybrid-midas",
    semseg_model: str | None = "facebook/mask2former-swin-base-coco-panoptic",
    depth_kind: Literal["auto", "metric", "relative", "inverse"] = "auto",
    batch_size: Annotated[int, AT_LEAST_1] = 8,
    workers: Annotated[int, AT_LEAST_0] = 2,
    device: Literal["auto", "cpu"] = "auto",
    precision: Precision = "fp32",
    on_error: OnError = "raise",
) -> None:
    """Makes depth and class maps for a folder of images.

    For an image SOURCE/CLASS/STEM.jpg (or .jpeg, .png; a single class folder may be named ``all``) it writes
    OUTPUT/depth/CLASS/STEM.png (16 bits) and OUTPUT/semseg/CLASS/STEM.png (8 bits), both of the image's size. With
    ROOT/train/rgb as SOURCE and ROOT/train as OUTPUT, pre-training finds the maps. Images are read as in pre-training:
    as RGB, without transparency, ignoring the EXIF orientation.

    An interrupted command resumes when run again. Several processes, started by torchrun, share the images.
    OUTPUT/pseudo_labels.json names the models; maps of different models in one folder are an error.

    Depth: larger is farther. Metric depth is stored in millimeters. Depth without a unit is scaled to 1 to 65535 per
    image; inverse depth (MiDaS) is negated, so it stays linear in one over the distance. Pre-training standardizes
    each image, so that unit and offset do not matter. The public MultiMAE used Omnidata's DPT, which predicts depth,
    not its inverse, and is not available in transformers: the default is a model of the same architecture.

    Classes: each pixel has the class with the largest score, 0 to 132 for the 133 panoptic labels of COCO; void (255)
    is never written.

    Args:
        source: Folder of class folders of images.
        output: Folder for the maps.
        depth_model: Depth estimation model of transformers: a folder or a name on the hub. Null disables depth.
        semseg_model: Mask2Former of transformers: a folder or a name on the hub. Null disables class maps.
        depth_kind: The kind of the depth model's predictions: metric (meters), relative (larger is farther) or inverse
            (larger is nearer). Auto recognizes MiDaS DPT, Depth Anything, ZoeDepth, GLPN and Depth Pro.
        batch_size: Images per batch, all of the same size after preprocessing.
        workers: Processes that read images, and threads that write maps. 0 reads in the main process.
        device: Auto uses an accelerator if there is one.
        precision: Precision of matrix products: fp32 is float32; fp16 requires an accelerator.
        on_error: How to treat a file that is not an image or is truncated: raise an error, or skip and count it.

    Raises:
        ValueError: If an option, a checkpoint or an image is invalid, or ``output`` holds maps of other models.

    References:
        Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022, section 3.4.
        Ranftl et al., Vision Transformers for Dense Prediction, ICCV 2021.
        Cheng et al., Masked-attention Mask Transformer for Universal Image Segmentation, CVPR 2022.
    """
    from taskrobust.vision.pseudo_labels.label_images import label_images, processes, rank

    if batch_size < 1 or workers < 0:
        raise ValueError(f"Expected batch_size from 1 and workers from 0, got {batch_size} and {workers}.")
    if depth_model is None and semseg_model is None:
        raise ValueError("Expected a depth_model or a semseg_model, got neither.")
    images = find_images(source)[rank() :: processes()]
    where = _device(device)
    if precision == "fp16" and where.type == "cpu":
        raise ValueError("Expected an accelerator for precision fp16, got the CPU. Use bf16 or fp32.")
    labelers: list[Labeler] = []
    if depth_model is not None:
        kind: DepthKind | None = None if depth_kind == "auto" else depth_kind
        labelers.append(DepthLabeler(depth_model, where, precision, kind))
    if semseg_model is not None:
        labelers.append(SemSegLabeler(semseg_model, where, precision))
    _claim(output, labelers)
    for labeler in labelers:
        label_images(labeler, source, images, output, batch_size=batch_size, workers=workers, on_error=on_error)


def find_images(source: Path) -> list[str]:
    """The images in a folder of class folders, as sorted relative paths CLASS/FILE.

    Raises:
        ValueError: If there are none, some are outside of class folders, or two would have the same map.
    """
    from taskrobust.vision.pseudo_labels.label_images import map_of

    if not source.is_dir():
        raise ValueError(f"Expected a folder of class folders of images, {source} is not a folder.")
    if [entry for entry in os.scandir(source) if _is_image(entry)]:
        raise ValueError(f"Expected images in class folders such as {source / 'all'}, found some in {source} itself.")
    images: dict[str, str] = {}
    for folder in sorted(entry.name for entry in os.scandir(source) if entry.is_dir()):
        for file in sorted(entry.name for entry in os.scandir(source / folder) if _is_image(entry)):
            image = f"{folder}/{file}"
            other = images.setdefault(map_of(image), image)
            if other != image:
                raise ValueError(f"Expected one image of each name, found {source / other} and {source / image}.")
    if not images:
        raise ValueError(
            f"Expected images ({', '.join(Rgb.suffixes)}) in class folders of {source}, found none. "
            "For a data set ROOT/train/rgb/CLASS/FILE, use ROOT/train/rgb."
        )
    return list(images.values())


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(Rgb.suffixes) and not entry.name.startswith(".") and entry.is_file()


def _device(name: Literal["auto", "cpu"]) -> torch.device:
    if name == "cpu" or not torch.accelerator.is_available():
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    index = int(os.environ.get("LOCAL_RANK", 0)) % torch.accelerator.device_count()
    return torch.device(accelerator.type, index)


def _claim(output: Path, labelers: Sequence[Labeler]) -> None:
    """Record the models of the maps, unless the folder holds maps of others."""
    from taskrobust.vision.pseudo_labels.label_images import rank

    # Folders before the manifest: another process writes them in the opposite order.
    there = {labeler.modality for labeler in labelers if _has_entries(output / labeler.modality)}
    before = _read_manifest(output)
    manifest = dict(before)
    for labeler in labelers:
        name, now = labeler.modality, labeler.provenance
        if name not in there:
            manifest[name] = now
        elif name not in before:
            raise ValueError(
                f"Expected no maps in {output / name}, or maps that are listed in {output / MANIFEST}, found others. "
                "Choose another output."
            )
        elif _without_name(before[name]) != _without_name(now):
            raise ValueError(
                f"Expected the maps in {output / name} to be of one model: they are of {_told(before[name])}, this is "
                f"{_told(now)}. Choose another output, or delete {output / name}."
            )
    if manifest != before and rank() == 0:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    for labeler in labelers:
        (output / labeler.modality).mkdir(exist_ok=True)


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _read_manifest(output: Path) -> dict[str, Any]:
    path = output / MANIFEST
    if not path.exists():
        return {}
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def _without_name(provenance: dict[str, Any]) -> dict[str, Any]:
    """The properties that identify a model, without the folder of its checkpoint."""
    return {key: value for key, value in provenance.items() if key != "model"}


def _told(provenance: dict[str, Any]) -> str:
    kind = f", {provenance['kind']}" if "kind" in provenance else ""
    return f"{provenance['model']} (weights {provenance['weights'][:8]}{kind})"
