"""The paper's Table 2 and Figure 3: images, labels and depth after pre-training MM-MAE with several weightings."""

from dataclasses import dataclass
from pathlib import Path

from taskrobust.reproduce.configs import config, weighting_config
from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import carry_out
from taskrobust.reproduce.scales import MISSING, Scale, Step, longest_chains_first, seed_folders
from taskrobust.vision.step_cost import STRATEGIES

_WEIGHTINGS = ("average", "uncertainty", "gradnorm", "dwa", "minimax")


@dataclass(frozen=True)
class _Recipe:
    """What a scale runs.

    Attributes:
        pretrain: The pre-training.
        tasks: The fine-tunings by task.
        images: Options that name the images of Figure 3.
        cost: Options with which a pre-training step is measured.
        jobs: Parts at a time.
    """

    pretrain: Step
    tasks: dict[str, Step]
    images: tuple[str, ...]
    cost: tuple[str, ...]
    jobs: int


_NYU_TEST = ("--test", "ImageFolders", "--test.root", "$TASKROBUST_DATA/nyuv2", "--test.split", "val")
_RECIPES: dict[Scale, _Recipe] = {
    "demo": _Recipe(
        pretrain=Step("vision/demo", 1.5),
        tasks={
            "classification": Step("vision/finetune/rooms-classification", 1.5),
            "semseg": Step("vision/finetune/rooms-semseg", 1.2),
            "depth": Step("vision/finetune/rooms-depth", 0.7),
        },
        images=("--test", "Scenes", "--test.folder", "runs/demo-vision/rooms/test"),
        cost=("--batch_size", "48"),
        jobs=2,
    ),
    "small": _Recipe(
        pretrain=Step("vision/nyu-small", 14.0),
        tasks={
            "classification": Step("vision/finetune/imagenette", 10.5),
            "semseg": Step("vision/finetune/nyu-semseg", 18.5),
            "depth": Step("vision/finetune/nyu-depth", 11.5),
        },
        images=_NYU_TEST,
        cost=("--batch_size", "16"),
        jobs=2,
    ),
    "paper": _Recipe(
        pretrain=Step("vision/paper-s50", None, 8),
        tasks={
            "classification": Step("vision/finetune/paper-classification", None, 8),
            "semseg": Step("vision/finetune/paper-semseg", None),
            "depth": Step("vision/finetune/paper-depth", None),
        },
        images=_NYU_TEST,
        cost=("--batch_size", "256"),
        jobs=1,
    ),
}


def table2(
    scale: Scale = "demo",
    output: Path | None = None,
    weightings: list[str] | None = None,
    seeds: list[int] | None = None,
    jobs: int | None = None,
    processes: int = 1,
    dry_run: bool = False,
) -> None:
    """Reproduce Table 2: pre-train MM-MAE with several weightings, fine-tune on three tasks, compare.

    The tasks are classification, semantic segmentation and depth. A plan of commands that can be cut off and continued:
    what is finished is not run again, and what fails stops only what builds on it. The page with all tables and plots
    is OUTPUT/comparison/index.html, and OUTPUT/figure3.png shows segmentations.

    Args:
        scale: ``demo``: generated rooms, minutes on two cores. ``small``: NYUv2 and imagenette in the folder that
            TASKROBUST_DATA names. ``paper``: ViT-B, ImageNet-S50 for 800 epochs, on CUDA.
        output: Folder of everything. None takes runs/table2-SCALE.
        weightings: Names of files in configs/weighting. The first is the baseline. None takes average, which the paper
            calls None, uncertainty, gradnorm, dwa and minimax.
        seeds: Seeds, of pre-training and fine-tuning. None takes 0.
        jobs: Parts that run at a time. None takes what the scale is made for: two, or one at the scale of the paper.
        processes: Processes of each part, for which torchrun is called. A step has as many samples on any number.
        dry_run: Whether to print the plan and the time that it takes, and run nothing.

    Raises:
        ValueError: If the folder holds another plan, or there is no such weighting.
        RuntimeError: If parts failed.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Table 2.
    """
    recipe = _RECIPES[scale]
    folder = output or Path(f"runs/table2-{scale}")
    folders = seed_folders(folder, weightings or _WEIGHTINGS, seeds or [0])
    parts = _fine_tuned(recipe, folders, tuple(recipe.tasks), processes)
    measured = [weighting for weighting in weightings or _WEIGHTINGS if weighting in STRATEGIES]
    parts.append(_cost(recipe, folder, measured))
    names = tuple(part.name for part in parts)
    labelled = [f"{weighting}={place}" for (weighting, _), place in folders.items()]
    labelled += [f"{weighting}={folder / 'cost' / weighting}" for weighting in measured]
    comparison = ("compare", *labelled, "--output", str(folder / "comparison"), *MISSING)
    parts.append(Part(name="comparison", command=comparison, finished=(), after=names, minutes=0.2))
    parts.append(_figure(recipe, folder, folders))
    carry_out(Plan(folder, parts), jobs or recipe.jobs, dry_run)


def figure3(
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
    recipe = _RECIPES[scale]
    folder = output or Path(f"runs/table2-{scale}")
    folders = seed_folders(folder, weightings or _WEIGHTINGS, [0])
    parts = [*_fine_tuned(recipe, folders, ("semseg",), processes), _figure(recipe, folder, folders)]
    carry_out(Plan(folder, parts), jobs or recipe.jobs, dry_run)


def _fine_tuned(
    recipe: _Recipe, folders: dict[tuple[str, int], Path], tasks: tuple[str, ...], processes: int
) -> list[Part]:
    """Pre-trainings, and the fine-tunings that build on each."""
    parts = []
    for (weighting, seed), place in folders.items():
        name = f"{weighting}/seed{seed}"
        overlays = [config(recipe.pretrain.config), weighting_config(weighting, "vision")]
        pretrain = Part(
            name=f"{name}/pretrain",
            command=(
                *("pretrain-mae", *(word for overlay in overlays for word in ("--config", overlay))),
                *("--loop.seed", str(seed), "--output", str(place / "pretrain")),
            ),
            finished=(place / "pretrain/model/evaluation.json",),
            minutes=recipe.pretrain.minutes,
            processes=processes,
            batches=recipe.pretrain.batches(processes),
        )
        parts.append(pretrain)
        for task in tasks:
            step = recipe.tasks[task]
            command = (
                *("finetune-vision", "--config", config(step.config), "--model", str(place / "pretrain")),
                *("--loop.seed", str(seed), "--output", str(place / task)),
            )
            finished = (place / task / "results.json",)
            tuned = Part(
                name=f"{name}/{task}",
                command=command,
                finished=finished,
                needs=(pretrain.name,),
                minutes=step.minutes,
                processes=processes,
                batches=step.batches(processes),
            )
            parts.append(tuned)
    return longest_chains_first(parts)


def _cost(recipe: _Recipe, folder: Path, weightings: list[str]) -> Part:
    return Part(
        name="cost",
        command=(
            *("step-cost", "--output", str(folder / "cost"), "--weightings", *weightings),
            *(*recipe.pretrain.shape(), *recipe.cost),
        ),
        finished=(folder / "cost/table.md",),
        minutes=0.5 if recipe.pretrain.minutes is not None else None,
    )


def _figure(recipe: _Recipe, folder: Path, folders: dict[tuple[str, int], Path]) -> Part:
    first = min(seed for _, seed in folders)
    shown = {weighting: place / "semseg" for (weighting, seed), place in folders.items() if seed == first}
    return Part(
        name="figure3",
        command=(
            *("compare-predictions", *(f"{weighting}={place}" for weighting, place in shown.items())),
            *(*recipe.images, "--output", str(folder / "figure3.png")),
        ),
        finished=(),
        needs=tuple(f"{weighting}/seed{first}/semseg" for weighting in shown),
        minutes=0.2,
    )
