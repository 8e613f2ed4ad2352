"""The paper's Table 1: GLUE after pre-training PoS-BERT with several weightings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from taskrobust._io.settings import AT_LEAST_1
from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import carry_out
from taskrobust.reproduce.scales import MISSING, Scale, Step, longest_chains_first, pretraining, seed_folders

_WEIGHTINGS = ("average", "token-mean", "minimax")


@dataclass(frozen=True)
class _Recipe:
    """The commands of a scale.

    Attributes:
        pretrain: The pre-training.
        glue: The fine-tuning, with the minutes per task and seed.
        seeds: Seeds of the fine-tuning.
        jobs: Number of parts that run in parallel.
    """

    pretrain: Step
    glue: Step
    seeds: tuple[int, ...]
    jobs: int


_RECIPES: dict[Scale, _Recipe] = {
    "demo": _Recipe(Step("nlp/demo", 1.5), Step("nlp/glue-demo", 0.25), (0,), 2),
    "small": _Recipe(Step("nlp/books-small", 7.0), Step("nlp/glue-small", 1.5), (0, 1, 2), 2),
    "paper": _Recipe(Step("nlp/paper-base", None, 8), Step("nlp/glue", None), (0, 1, 2, 3, 4), 1),
}


def reproduce_table1(
    scale: Scale = "demo",
    output: Path | None = None,
    weightings: list[str] | None = None,
    seeds: list[int] | None = None,
    jobs: Annotated[int | None, AT_LEAST_1] = None,
    processes: Annotated[int, AT_LEAST_1] = 1,
    dry_run: bool = False,
) -> None:
    """Reproduce Table 1: pre-train PoS-BERT with several weightings, fine-tune on GLUE, and compare.

    An interrupted reproduction resumes with the same command: finished parts do not run again, and a failed part stops
    only the parts that need it. OUTPUT/comparison/index.html shows all tables and plots.

    Args:
        scale: ``demo``: generated text and a generated GLUE, minutes on two cores. ``small``: public-domain books and
            six tasks of GLUE in the folder TASKROBUST_DATA. ``paper``: BERT-base and all tasks, on CUDA.
        output: Folder of the runs and the comparison. Defaults to runs/table1-SCALE.
        weightings: Names of files in configs/weighting. The first is the baseline. Defaults to average (the paper's
            None), token-mean (BERT's own loss) and minimax.
        seeds: Seeds of the pre-training. Each model is fine-tuned. Defaults to 0.
        jobs: Number of parts that run in parallel. Defaults to two, and to one at the scale of the paper.
        processes: Processes per part, started by torchrun. The samples per step stay the same.
        dry_run: Whether to print the plan with its commands and estimated time, and run nothing.

    Raises:
        ValueError: If the folder holds another plan, or a weighting is unknown.
        RuntimeError: If a part failed.

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


def _parts(recipe: _Recipe, weighting: str, seed: int, folder: Path, processes: int) -> list[Part]:
    pretrain = pretraining("pretrain-bert", "nlp", recipe.pretrain, weighting, seed, folder, processes)
    tasks = recipe.glue.settings["tasks"]
    finetune = Part(
        name=f"{weighting}/seed{seed}/glue",
        command=(
            *("finetune-glue", "--config", recipe.glue.path, "--model", str(folder / "pretrain")),
            *("--output", str(folder / "glue"), f"--seeds={list(recipe.seeds)}"),
        ),
        finished=tuple(folder / f"glue/{task}/seed{k}/results.json" for task in tasks for k in recipe.seeds),
        needs=(pretrain.name,),
        minutes=recipe.glue.minutes and recipe.glue.minutes * len(tasks) * len(recipe.seeds),
        processes=processes,
        batches=recipe.glue.batches(processes),
    )
    return [pretrain, finetune]
