"""Generated rooms to fine-tune on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from taskrobust._io.locks import made_by_one
from taskrobust._io.paths import expand_variables
from taskrobust.synthetic.rooms import generate_scenes
from taskrobust.synthetic.rooms.rooms import Domain, Split
from taskrobust.synthetic.rooms.store import MANIFEST
from taskrobust.vision.data import Images, Scenes
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import Transform

_SEED: Final = 1
"""Other rooms than those of pre-training, whose seed is 0."""


@dataclass(kw_only=True)
class RoomsConfig:
    """Generated rooms with exact depth and labels, none of which is among those of pre-training.

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

    folder: Path = Path("rooms")
    train: int = 2000
    held_out: int = 300
    test: int = 500
    size: int = 72
    domain: Domain = "source"
    num_proc: int = 1


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
    """What reads the rooms of a split: train, held-out or test."""
    return partial(Scenes, folder=config.folder / split)
