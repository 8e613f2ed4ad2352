"""Generated rooms to fine-tune on, and rooms as image files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from PIL import Image

from taskrobust._io.locks import made_by_one
from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import MAY_CHANGE
from taskrobust.synthetic.rooms import generate_scenes
from taskrobust.synthetic.rooms.render import render
from taskrobust.synthetic.rooms.rooms import Domain, Split, generator_of, make_scene
from taskrobust.synthetic.rooms.store import MANIFEST
from taskrobust.vision.data import Images, Scenes
from taskrobust.vision.modalities import Modality
from taskrobust.vision.modalities.normals import normals_from_depth
from taskrobust.vision.transforms.crops import Transform

_SEED: Final = 1
"""Other rooms than those of pre-training, whose seed is 0."""


@dataclass(kw_only=True)
class RoomsConfig:
    """Generated rooms with exact depth and labels, other than those of pre-training.

    Args:
        folder: Where they are, in ``train``, ``held-out`` and ``test``. Environment variables are filled in.
        train: Number of rooms to train on.
        held_out: Number of rooms to choose the best model by.
        test: Number of rooms to report on.
        size: Side of the pictures in pixels.
        domain: ``source`` are like those of pre-training, ``shifted`` are larger rooms in dim and colored light, seen
            in a wider view.
        num_proc: Processes that generate them.
    """

    folder: Annotated[Path, MAY_CHANGE] = Path("rooms")
    train: int = 2000
    held_out: int = 300
    test: int = 500
    size: int = 72
    domain: Domain = "source"
    num_proc: Annotated[int, MAY_CHANGE] = 1


def prepare_rooms(config: RoomsConfig) -> None:
    """Generate the rooms that are not there yet; of several processes one does and the others wait.

    Called before the processes form a group, whose members do not wait for long.

    Raises:
        ValueError: If a folder holds other rooms.
    """
    folder = Path(expand_variables(config.folder))
    splits: dict[str, tuple[Split, int]] = {
        "train": ("train", config.train),
        "held-out": ("val", config.held_out),
        "test": ("test", config.test),
    }

    def make() -> None:
        domain, processes = config.domain, config.num_proc
        for name, (split, rooms) in splits.items():
            generate_scenes(folder / name, split, rooms, config.size, domain=domain, seed=_SEED, num_proc=processes)

    made_by_one(folder, make, lambda: all(MANIFEST.is_complete(folder / name) for name in splits))


def rooms_of(config: RoomsConfig, split: str) -> Callable[[Mapping[str, Modality], Transform], Images]:
    """The data set of a split: train, held-out or test."""
    return partial(Scenes, folder=config.folder / split)


def write_room_images(folder: Path, split: Split, images: int, size: int, domain: Domain = "source") -> None:
    """Write rooms with surface normals as the PNG files that ``ImageFolders`` reads.

    The files are ``folder / split / map / rooms / number.png`` for rgb, depth (millimeters), semseg and normals.

    Args:
        folder: Root folder.
        split: train, val or test.
        images: Number of rooms.
        size: Side of the images in pixels.
        domain: Kind of rooms, see ``RoomsConfig``.
    """
    for number in range(images):
        generator = generator_of(split, number, domain, _SEED)
        scene = make_scene(generator, domain)
        maps = render(scene, size, generator)._asdict()
        normals = normals_from_depth(maps["depth"].astype(np.float32) / 1000, scene.camera.focal)
        for name, values in {**maps, "normals": normals}.items():
            path = folder / split / name / "rooms" / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
