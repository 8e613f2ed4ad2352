from pathlib import Path
from typing import Annotated

from taskrobust._io.settings import AT_LEAST_1
from taskrobust.reproduce.mae import RECIPES, WEIGHTINGS, figure, fine_tunings
from taskrobust.reproduce.plan import Plan
from taskrobust.reproduce.running import carry_out
from taskrobust.reproduce.scales import Scale, seed_folders


def reproduce_figure3(
    scale: Scale = "demo",
    output: Path | None = None,
    weightings: list[str] | None = None,
    jobs: Annotated[int | None, AT_LEAST_1] = None,
    processes: Annotated[int, AT_LEAST_1] = 1,
    dry_run: bool = False,
) -> None:
    """Reproduce Figure 3: draw segmentations after pre-training with several weightings, side by side.

    Runs a part of the plan of table2 in the same folder; each reuses finished parts of the other. The figure is
    OUTPUT/figure3.png.

    Args:
        scale: See table2.
        output: Folder of the runs and the figure. Defaults to runs/table2-SCALE.
        weightings: Names of files in configs/weighting. Defaults to those of table2.
        jobs: Number of parts that run in parallel. Defaults to two, and to one at the scale of the paper.
        processes: Processes per part, started by torchrun. The samples per step stay the same.
        dry_run: Whether to print the plan with its commands and estimated time, and run nothing.

    Raises:
        ValueError: If the folder holds another plan, or a weighting is unknown.
        RuntimeError: If a part failed.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Figure 3.
    """
    recipe = RECIPES[scale]
    folder = output or Path(f"runs/table2-{scale}")
    folders = seed_folders(folder, weightings or WEIGHTINGS, [0])
    parts = [*fine_tunings(recipe, folders, ("semseg",), processes), figure(recipe, folder, folders)]
    carry_out(Plan(folder, parts), jobs or recipe.jobs, dry_run)
