from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Scale = Literal["demo", "small", "paper"]


def seed_folders(folder: Path, weightings: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], Path]:
    """Where the runs of each weighting and seed are, all weightings of a seed before the next seed."""
    return {(weighting, seed): folder / weighting / f"seed{seed}" for seed in seeds for weighting in weightings}
