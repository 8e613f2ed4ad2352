"""The paper's Table 1: GLUE after pre-training PoS-BERT with several weightings."""

from dataclasses import dataclass
from pathlib import Path

from taskrobust.reproduce.configs import config, weighting_config
from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import carry_out
from taskrobust.reproduce.scales import MISSING, Scale, Step, longest_chains_first, seed_folders

_WEIGHTINGS = ("average", "token-mean", "minimax")


@dataclass(frozen=True)
class _Recipe:
    """What a scale runs.

    Attributes:
        pretrain: The pre-training.
        glue: The fine-tuning; its minutes are for one task and seed.
        tasks: Tasks of GLUE.
        seeds: Seeds of the fine-tuning.
        jobs: Parts at a time.
    """

    pretrain: Step
    glue: Step
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: int


_SIX = ("cola", "sst2", "mrpc", "stsb", "qnli", "rte")
_ALL = ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
_RECIPES: dict[Scale, _Recipe] = {
    "demo": _Recipe(Step("nlp/demo", 1.5), Step("nlp/glue-demo", 0.25), _ALL, (0,), 2),
    "small": _Recipe(Step("nlp/books-small", 7.0), Step("nlp/glue-small", 1.5), _SIX, (0, 1, 2), 2),
    "paper": _Recipe(Step("nlp/paper-base", None, 8), Step("nlp/glue", None), _ALL, (0, 1, 2, 3, 4), 1),
}


def reproduce_table1(
    scale: Scale = "demo",
    output: Path | None = None,
    weightings: list[str] | None = None,
    seeds: list[int] | None = None,
    jobs: int | None = None,
    processes: int = 1,
    dry_run: bool = False,
) -> None:
    """Reproduce Table 1: pre-train PoS-BERT with several weightings, fine-tune on GLUE, compare.

    A plan of commands that can be cut off and continued: what is finished is not run again, and what fails stops only
    what builds on it. The page with all tables and plots is OUTPUT/comparison/index.html.

    Args:
        scale: ``demo``: generated text and a generated GLUE, minutes on two cores. ``small``: public-domain books and
            the six tasks in the folder that TASKROBUST_DATA names. ``paper``: BERT-base and all tasks, on CUDA.
        output: Folder of everything. None takes runs/table1-SCALE.
        weightings: Names of files in configs/weighting. The first is the baseline. None takes average, which the paper
            calls None, token-mean, which is BERT's own loss, and minimax.
        seeds: Seeds of the pre-training, each fine-tuned by itself. None takes 0.
        jobs: Parts that run at a time. None takes what the scale is made for: two, or one at the scale of the paper.
        processes: Processes of each part, for which torchrun is called. A step has as many samples on any number.
        dry_run: Whether to print the plan and the time that it takes, and run nothing.

    Raises:
        ValueError: If the folder holds another plan, or there is no such weighting.
        RuntimeError: If parts failed.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Table 1.
    """
    recipe = _RECIPES[scale]
    folder = output or Path(f"runs/table1-{scale}")
    folders = seed_folders(folder, weightings or _WEIGHTINGS, seeds or [0])
    parts: list[Part] = []
    for (weighting, seed), place in folders.items():
        parts += _parts(recipe, weighting, seed, place, processes)
    parts = longest_chains_first(parts)
    labeled = [f"{weighting}={place}" for (weighting, _), place in folders.items()]
    comparison = ("compare", *labeled, "--output", str(folder / "comparison"), "--statistic", "median", *MISSING)
    names = tuple(part.name for part in parts)
    parts.append(Part(name="comparison", command=comparison, finished=(), after=names, minutes=0.2))
    carry_out(Plan(folder, parts), jobs or recipe.jobs, dry_run)


def _parts(recipe: _Recipe, weighting: str, seed: int, place: Path, processes: int) -> list[Part]:
    name, pretrained, glue = f"{weighting}/seed{seed}", place / "pretrain", place / "glue"
    overlays = [config(recipe.pretrain.config), weighting_config(weighting, "nlp")]
    pretrain = Part(
        name=f"{name}/pretrain",
        command=(
            *("pretrain-bert", *(word for overlay in overlays for word in ("--config", overlay))),
            *("--loop.seed", str(seed), "--output", str(pretrained)),
        ),
        finished=(pretrained / "model/evaluation.json",),
        minutes=recipe.pretrain.minutes,
        processes=processes,
        batches=recipe.pretrain.batches(processes),
    )
    finetune = Part(
        name=f"{name}/glue",
        command=(
            *(
                "finetune-glue",
                "--config",
                config(recipe.glue.config),
                "--model",
                str(pretrained),
                "--output",
                str(glue),
            ),
            *("--tasks", *recipe.tasks, f"--seeds={list(recipe.seeds)}"),
        ),
        finished=tuple(glue / task / f"seed{k}" / "results.json" for task in recipe.tasks for k in recipe.seeds),
        needs=(pretrain.name,),
        minutes=recipe.glue.minutes and recipe.glue.minutes * len(recipe.tasks) * len(recipe.seeds),
        processes=processes,
        batches=recipe.glue.batches(processes),
    )
    return [pretrain, finetune]
