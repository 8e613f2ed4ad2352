"""The plan of Table 2 and Figure 3: pre-trainings of MM-MAE and their fine-tunings."""

from dataclasses import dataclass
from pathlib import Path

from taskrobust.reproduce.plan import Part
from taskrobust.reproduce.scales import Scale, Step, longest_chains_first, pretraining

WEIGHTINGS = ("average", "uncertainty", "gradnorm", "dwa", "minimax")


@dataclass(frozen=True)
class Recipe:
    """The commands of a scale.

    Attributes:
        pretrain: The pre-training.
        tasks: The fine-tunings by task.
        images: Options that name the images of Figure 3.
        cost: Options with which the cost of a pre-training step is measured.
        jobs: Number of parts that run in parallel.
    """

    pretrain: Step
    tasks: dict[str, Step]
    images: tuple[str, ...]
    cost: tuple[str, ...]
    jobs: int


_NYU_TEST = ("--test", "ImageFolders", "--test.root", "$TASKROBUST_DATA/nyuv2", "--test.split", "val")


RECIPES: dict[Scale, Recipe] = {
    "demo": Recipe(
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
    "small": Recipe(
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
    "paper": Recipe(
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


def fine_tunings(
    recipe: Recipe, folders: dict[tuple[str, int], Path], tasks: tuple[str, ...], processes: int
) -> list[Part]:
    """Pre-trainings and their fine-tunings.

    Args:
        recipe: Commands of the scale.
        folders: Folders of the runs by weighting and seed.
        tasks: The tasks to fine-tune on.
        processes: Number of processes per part.

    Raises:
        ValueError: If a weighting is unknown.
    """
    parts = []
    for (weighting, seed), folder in folders.items():
        pretrain = pretraining("pretrain-mae", "vision", recipe.pretrain, weighting, seed, folder, processes)
        parts.append(pretrain)
        for task in tasks:
            step = recipe.tasks[task]
            tuned = Part(
                name=f"{weighting}/seed{seed}/{task}",
                command=(
                    *("finetune-vision", "--config", step.path, "--model", str(folder / "pretrain")),
                    *("--loop.seed", str(seed), "--output", str(folder / task)),
                ),
                finished=(folder / task / "results.json",),
                needs=(pretrain.name,),
                minutes=step.minutes,
                processes=processes,
                batches=step.batches(processes),
            )
            parts.append(tuned)
    return longest_chains_first(parts)


def figure(recipe: Recipe, folder: Path, folders: dict[tuple[str, int], Path]) -> Part:
    """The part that draws the segmentations of the first seed."""
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
