"""The scales at which a table is reproduced: their configurations, and the parts of a plan that run them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from taskrobust._io.paths import CONFIGS
from taskrobust.reproduce.plan import Part

Scale = Literal["demo", "small", "paper"]

MISSING: Final = ("--missing", "warn")
"""Options with which a comparison leaves out weightings whose runs failed, and says so."""


@dataclass(frozen=True)
class Step:
    """A command of a scale.

    Attributes:
        config: Path of its configuration in configs/, without the extension, such as ``vision/demo``.
        minutes: Minutes on one CPU core. None if not measured.
        made_for: Number of processes that the configuration's batch size is for.
    """

    config: str
    minutes: float | None
    made_for: int = 1

    @property
    def path(self) -> str:
        """Path of the configuration file, relative to the current folder if it is below."""
        return _typed(CONFIGS / f"{self.config}.yaml")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the configuration."""
        settings: dict[str, Any] = yaml.safe_load(Path(self.path).read_text())
        return settings

    def batches(self, processes: int) -> tuple[str, ...]:
        """Options that keep the number of samples per optimizer step on another number of processes.

        Raises:
            ValueError: If the samples cannot be divided evenly.
        """
        if processes == self.made_for:
            return ()
        size = self.settings["loop"].get("batch_size", 32)
        if processes < self.made_for and self.made_for % processes == 0:
            return ("--loop.accumulation", str(self.made_for // processes))
        if processes > self.made_for and self.made_for * size % processes == 0:
            return ("--loop.batch_size", str(self.made_for * size // processes))
        raise ValueError(
            f"Expected a number of processes that divides the {self.made_for * size} samples per step of {self.path} "
            f"evenly, got {processes}."
        )


def pretraining(command: str, kind: str, step: Step, weighting: str, seed: int, folder: Path, processes: int) -> Part:
    """The part that pre-trains with a weighting and a seed.

    Args:
        command: ``pretrain-bert`` or ``pretrain-mae``.
        kind: ``nlp`` or ``vision``.
        step: Configuration of the pre-training.
        weighting: Name of a file in configs/weighting, or in configs/ of the kind, which takes precedence.
        seed: The seed.
        folder: Folder of the run and the fine-tunings of its model.
        processes: Number of processes.

    Raises:
        ValueError: If the weighting is unknown.
    """
    places = [CONFIGS / place / f"{weighting}.yaml" for place in (kind, "weighting")]
    overlay = next((path for path in places if path.exists()), None)
    if overlay is None:
        known = sorted(path.stem for path in (CONFIGS / "weighting").glob("*.yaml"))
        raise ValueError(f"Expected weightings among {known}, got {weighting!r}.")
    return Part(
        name=f"{weighting}/seed{seed}/pretrain",
        command=(
            *(command, "--config", step.path, "--config", _typed(overlay)),
            *("--loop.seed", str(seed), "--output", str(folder / "pretrain")),
        ),
        finished=(folder / "pretrain/model/evaluation.json",),
        minutes=step.minutes,
        processes=processes,
        batches=step.batches(processes),
    )


def seed_folders(folder: Path, weightings: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], Path]:
    """Folders of the runs by weighting and seed: all weightings of a seed before the next seed."""
    return {(weighting, seed): folder / weighting / f"seed{seed}" for seed in seeds for weighting in weightings}


def longest_chains_first(parts: Sequence[Part]) -> list[Part]:
    """Sort parts that others need to the front, so that no core waits for a last chain at the end."""
    return sorted(parts, key=lambda part: len(part.needs))


def _typed(path: Path) -> str:
    """A path as one would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
