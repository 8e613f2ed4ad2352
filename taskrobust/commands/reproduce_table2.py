from pathlib import Path
from typing import Annotated

from taskrobust._io.settings import AT_LEAST_1
from taskrobust.commands.step_cost import STRATEGIES
from taskrobust.reproduce.mae import RECIPES, WEIGHTINGS, Recipe, figure, fine_tunings
from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import carry_out
from taskrobust.reproduce.scales import MISSING, Scale, seed_folders


def reproduce_table2(
    scale: Scale = "demo",
    output: Path | None = None,
    weightings: list[str] | None = None,
    seeds: list[int] | None = None,
    jobs: Annotated[int | None, AT_LEAST_1] = None,
    processes: Annotated[int, AT_LEAST_1] = 1,
    dry_run: bool = False,
) -> None:
    """Reproduce Table 2: pre-train MM-MAE with several weightings, fine-tune on three tasks, and compare.

    The tasks are classification, semantic segmentation and depth. An interrupted reproduction resumes with the same
    command: finished parts do not run again, and a failed part stops only the parts that need it.
    OUTPUT/comparison/index.html shows all tables and plots, and OUTPUT/figure3.png shows segmentations.

    Args:
        scale: ``demo``: generated rooms, minutes on two cores. ``small``: NYUv2 and imagenette in the folder
            TASKROBUST_DATA. ``paper``: ViT-B, ImageNet-S50 for 800 epochs, on CUDA.
        output: Folder of the runs and the comparison. Defaults to runs/table2-SCALE.
        weightings: Names of files in configs/weighting. The first is the baseline. Defaults to average (the paper's
            None), uncertainty, gradnorm, dwa and minimax.
        seeds: Seeds of pre-training and fine-tuning. Defaults to 0.
        jobs: Number of parts that run in parallel. Defaults to two, and to one at the scale of the paper.
        processes: Processes per part, started by torchrun. The samples per step stay the same.
        dry_run: Whether to print the plan with its commands and estimated time, and run nothing.

    Raises:
        ValueError: If the folder holds another plan, or a weighting is unknown.
        RuntimeError: If a part failed.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Table 2.
    """
    recipe = RECIPES[scale]
    folder = output or Path(f"runs/table2-{scale}")
    folders = seed_folders(folder, weightings or WEIGHTINGS, seeds or [0])
    parts = fine_tunings(recipe, folders, tuple(recipe.tasks), processes)
    measured = [weighting for weighting in weightings or WEIGHTINGS if weighting in STRATEGIES]
    parts.append(_cost(recipe, folder, measured))
    names = tuple(part.name for part in parts)
    labeled = [f"{weighting}={place}" for (weighting, _), place in folders.items()]
    labeled += [f"{weighting}={folder / 'cost' / weighting}" for weighting in measured]
    comparison = ("compare", *labeled, "--output", str(folder / "comparison"), *MISSING)
    parts.append(Part(name="comparison", command=comparison, finished=(), after=names, minutes=0.2))
    parts.append(figure(recipe, folder, folders))
    carry_out(Plan(folder, parts), jobs or recipe.jobs, dry_run)


def _cost(recipe: Recipe, folder: Path, weightings: list[str]) -> Part:
    mae = recipe.pretrain.settings.get("mae", {})
    shape = (word for name, value in mae.items() for word in (f"--mae.{name}", str(value)))
    return Part(
        name="cost",
        command=("step-cost", "--output", str(folder / "cost"), "--weightings", *weightings, *shape, *recipe.cost),
        finished=(folder / "cost/table.md",),
        minutes=0.5 if recipe.pretrain.minutes is not None else None,
    )
