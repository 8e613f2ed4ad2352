from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import yaml

from taskrobust.reproduce.configs import config
from taskrobust.reproduce.plan import Part

Scale = Literal["demo", "small", "paper"]

MISSING: Final = ("--missing", "warn")
"""A weighting whose runs have failed is left out of the comparison, which says so."""


@dataclass(frozen=True)
class Step:
    """A command of a scale.

    Attributes:
        config: Its configuration, as ``config`` finds it.
        minutes: Measured on one CPU core. None where nobody measured.
        made_for: Processes that the configuration's batch size is for.
    """

    config: str
    minutes: float | None
    made_for: int = 1

    def batches(self, processes: int) -> tuple[str, ...]:
        """Options with which a step of the optimizer has as many samples on another number of processes.

        Raises:
            ValueError: If they cannot be shared out.
        """
        if processes == self.made_for:
            return ()
        size = _settings(self.config)["loop"].get("batch_size", 32)
        if processes < self.made_for and self.made_for % processes == 0:
            return ("--loop.accumulation", str(self.made_for // processes))
        if processes > self.made_for and self.made_for * size % processes == 0:
            return ("--loop.batch_size", str(self.made_for * size // processes))
        raise ValueError(
            f"Expected processes that share {self.made_for * size} samples, a step of {config(self.config)}, evenly, "
            f"got {processes}."
        )

    def shape(self) -> tuple[str, ...]:
        """Options that say how large the configuration's vision model is."""
        return tuple(
            word
            for name, value in _settings(self.config).get("mae", {}).items()
            for word in (f"--mae.{name}", str(value))
        )


def _settings(name: str) -> dict[str, dict[str, int]]:
    settings: dict[str, dict[str, int]] = yaml.safe_load(Path(config(name)).read_text())
    return settings


def seed_folders(folder: Path, weightings: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], Path]:
    """Where the runs of each weighting and seed are, all weightings of a seed before the next seed."""
    return {(weighting, seed): folder / weighting / f"seed{seed}" for seed in seeds for weighting in weightings}


def longest_chains_first(parts: Sequence[Part]) -> list[Part]:
    """What others build on before the others, so that no core waits for a last chain in the end."""
    return sorted(parts, key=lambda part: len(part.needs))
