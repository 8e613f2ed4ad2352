"""The command that makes depth and class maps for a folder of images, with models that were trained for it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch

from taskrobust._io.atomic import write_atomically
from taskrobust.vision.data.base import OnError
from taskrobust.vision.modalities import Rgb
from taskrobust.vision.pseudo_labels.labelers import DepthKind, DepthLabeler, Labeler, Precision, SemSegLabeler

MANIFEST: Final = "pseudo_labels.json"
"""The file that says which models made the maps of a folder."""


def pseudo_label(
    source: Path,
    output: Path,
    *,
    depth_model: str | None = "Intel/dpt-hybrid-midas",
    semseg_model: str | None = "facebook/mask2former-swin-base-coco-panoptic",
    depth_kind: Literal["auto", "metric", "relative", "inverse"] = "auto",
    batch_size: int = 8,
    workers: int = 2,
    device: Literal["auto", "cpu"] = "auto",
    precision: Precision = "fp32",
    on_error: OnError = "raise",
) -> None:
    """Makes depth and class maps for a folder of images.

    An image SOURCE/CLASS/STEM.jpg (or .jpeg, .png; one class folder ``all`` will do) gets OUTPUT/depth/CLASS/STEM.png
    of 16 bits and OUTPUT/semseg/CLASS/STEM.png of 8 bits, both of its own size. With ROOT/train/rgb as SOURCE and
    ROOT/train as OUTPUT the maps lie where pre-training looks for them. Images are read as pre-training reads them: as
    RGB, transparency dropped, the EXIF orientation not applied.

    Run again after an interruption, it goes on where it stopped. Several processes, started by torchrun, share the
    images. OUTPUT/pseudo_labels.json names the models; maps of other models in the same folder are refused.

    Depth: a larger number is farther. Meters are stored as millimeters. What has no unit fills 1 to 65535 in every
    image; inverse depth (MiDaS) is negated, so it stays linear in one over the distance. Pre-training standardizes
    every image, so that unit and offset do not matter. The public MultiMAE used Omnidata's DPT, which predicts depth,
    not its inverse, and which transformers does not host: the default is a model of the same architecture.

    Classes: each pixel has the class of the largest score, 0 to 132 for the 133 of COCO's panoptic labels; void (255)
    is never written.

    Args:
        source: Folder of class folders of images.
        output: Folder for the maps.
        depth_model: Depth estimation model of transformers: a folder or a name on the hub. Null makes no depth.
        semseg_model: Mask2Former of transformers: a folder or a name on the hub. Null makes no class maps.
        depth_kind: What the depth model predicts: metric (meters), relative (larger is farther) or inverse (larger is
            nearer). Auto knows MiDaS DPT, Depth Anything, ZoeDepth, GLPN and Depth Pro.
        batch_size: Images that a model reads at once. Only images that it reads at the same size go together.
        workers: Processes that read images, and threads that write maps. 0 reads in the main process.
        device: Auto takes an accelerator where there is one.
        precision: Of the matrix products: fp32 is float32. fp16 needs an accelerator.
        on_error: What to do about a file that is no image, or half of one: raise an error, or skip it and count it.

    Raises:
        ValueError: If an option, a checkpoint or an image is not as it should be, or ``output`` holds maps of another
            origin.

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
    """The images of a folder of class folders, as sorted paths CLASS/FILE from there.

    Raises:
        ValueError: If there are none, some lie outside of class folders, or two would have the same map.
    """
    from taskrobust.vision.pseudo_labels.label_images import map_of

    if not source.is_dir():
        raise ValueError(f"Expected a folder of class folders of images, {source} is none.")
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
            "Of a data set ROOT/train/rgb/CLASS/FILE name ROOT/train/rgb."
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
    """Writes down which models make the maps, unless the folder holds maps of others."""
    from taskrobust.vision.pseudo_labels.label_images import rank

    # Folders before the manifest: another process writes them the other way round.
    there = {labeler.modality for labeler in labelers if _has_entries(output / labeler.modality)}
    before = _read_manifest(output)
    manifest = dict(before)
    for labeler in labelers:
        name, now = labeler.modality, labeler.provenance
        if name not in there:
            manifest[name] = now
        elif name not in before:
            raise ValueError(
                f"Expected no maps in {output / name}, or some that {output / MANIFEST} knows of, found others. "
                "Name another output."
            )
        elif _without_name(before[name]) != _without_name(now):
            raise ValueError(
                f"Expected the maps in {output / name} to be of one model: they are of {_told(before[name])}, this is "
                f"{_told(now)}. Name another output, or delete {output / name}."
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
    """What tells models apart: not the folder that a checkpoint happens to lie in."""
    return {key: value for key, value in provenance.items() if key != "model"}


def _told(provenance: dict[str, Any]) -> str:
    kind = f", {provenance['kind']}" if "kind" in provenance else ""
    return f"{provenance['model']} (weights {provenance['weights'][:8]}{kind})"
