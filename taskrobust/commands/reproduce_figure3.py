from pathlib import Path

from taskrobust.reproduce.mae import RECIPES, WEIGHTINGS, figure, fine_tunings
from taskrobust.reproduce.plan import Plan
from taskrobust.reproduce.running import carry_out
from taskrobust.reproduce.scales import Scale, seed_folders


def reproduce_figure3(
    scale: Scale = "demo",
    output: Path | None = None,
    weightings: list[str] | None = None,
    jobs: int | None = None,
    processes: int = 1,
    dry_run: bool = False,
) -> None:
    """Reproduce Figure 3: segmentations by models that were pre-trained with several weightings, side by side.

    A part of the plan of table2, in the same folder: what one has run the other need not. The figure is
    OUTPUT/figure3.png.

    Args:
        scale: See table2.
        output: Folder of everything. None takes runs/table2-SCALE.
        weightings: Names of files in configs/weighting. None takes those of table2.
        jobs: Parts that run at a time. None takes what the scale is made for.
        processes: Processes of each part, for which torchrun is called. A step has as many samples on any number.
        dry_run: Whether to print the plan and the time that it takes, and run nothing.

    Raises:
        ValueError: If the folder holds another plan, or there is no such weighting.
        RuntimeError: If parts failed.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Figure 3.
    """
    recipe = RECIPES[scale]
    folder = output or Path(f"runs/table2-{scale}")
    folders = seed_folders(folder, weightings or WEIGHTINGS, [0])
    parts = [*fine_tunings(recipe, folders, ("semseg",), processes), figure(recipe, folder, folders)]
    carry_out(Plan(folder, parts), jobs or recipe.jobs, dry_run)
