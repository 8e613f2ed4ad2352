import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import yaml
from rich.console import Console

from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import AT_LEAST_1, MAY_CHANGE, Range, changeable, check_same_settings, recorded
from taskrobust.nlp.glue.tasks import GLUE, glue_tasks
from taskrobust.training.config import LoopConfig, OptimConfig, RunConfig
from taskrobust.training.device import resolve_device

if TYPE_CHECKING:
    from taskrobust.nlp.glue.table import GlueTable

MINIATURE: Final = "miniature"
"""The source that is generated instead of read."""

_TASKS: Final = ["all"]
_EPOCHS: Final = 10
_RUN: Final = RunConfig(
    loop=LoopConfig(eval_every=None), optim=OptimConfig(lr=2e-5, weight_decay=0.1, warmup_steps=0.06)
)


def finetune_glue(
    model: str,
    glue: str,
    output: Annotated[Path, MAY_CHANGE],
    *,
    tasks: list[str] = _TASKS,
    seeds: int | list[int] = 5,
    train_samples: Annotated[int | None, AT_LEAST_1] = None,
    max_length: Annotated[int, Range(8)] = 128,
    predict: Annotated[bool, MAY_CHANGE] = False,
    run: RunConfig = _RUN,
    resolved: dict[str, Any] | None = None,
) -> "GlueTable":
    """Fine-tune a pre-trained model on GLUE with several seeds per task, and score it on the development sets.

    The output folder holds a run folder TASK/seedK for each task and seed, with the last model in model/ and its scores
    in results.json, and table.md and table.json: the median over seeds of each task, the averages and the worst task.
    Runs that are finished are not repeated. If a task fails, the others are still trained.

    The defaults are those of Table 5: ten epochs, learning rate 2e-5, batches of 32, weight decay 0.1, linear decay,
    and a warm-up of 6 % of the steps.

    Args:
        model: The model to fine-tune: a run folder of ``pretrain-bert``, the folder of a model, or a name on the hub.
        glue: A folder that holds the official folders of the tasks (CoLA, SST-2, ...), the name of a data set that
            ``datasets`` loads, such as nyu-mll/glue, or ``miniature`` for a small GLUE that is generated into the
            output folder.
        output: Folder of the runs and the table.
        tasks: Names of the tasks, or ``all``.
        seeds: Seeds of head, order of the data and dropout. A number of seeds: 5 uses 0, 1, 2, 3 and 4. Or a list of
            seeds: [0, 3].
        train_samples: Maximum number of training samples per task, always the same ones. None uses all.
        max_length: Maximum number of tokens per sentence or pair; longer ones are truncated.
        predict: Whether to write predictions on the test sets, in the leaderboard's format, to submission/ in the
            output folder: those of the seed whose score is the median.
        run: Loop, optimizer, device and the other settings of a run. Defaults to ten epochs if there are neither steps
            nor epochs. The seed is one of ``seeds``.
        resolved: The configuration in plain values, recorded in the run folders. Defaults to that of the arguments.

    Raises:
        ValueError: If there is no model or no seed, a task is unknown, or the output folder holds runs of another
            configuration.
        RuntimeError: If tasks failed, after the others are done. It says which and why.

    References:
        Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding, 2018.
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Table 5.
    """
    settings = resolved or recorded(locals())
    chosen, named_seeds = glue_tasks(tasks, generated=glue == MINIATURE), _seeds(seeds)
    source = expand_variables(glue)

    # These take seconds to import, which --help and errors in options do not need.
    from taskrobust.nlp.classifier import find_pretrained, load_tokenizer
    from taskrobust.nlp.glue.miniature import write_miniature_glue
    from taskrobust.nlp.glue.runs import FAILURES, FineTuning, UnreadableError
    from taskrobust.nlp.glue.table import GlueTable
    from taskrobust.training.distributed import make_accelerator

    output = Path(output)
    if run.loop.steps is None and run.loop.epochs is None:
        run = replace(run, loop=replace(run.loop, epochs=_EPOCHS))
        settings = settings | {"loop": {**settings["loop"], "epochs": _EPOCHS}}
    device = resolve_device(run.device, next(iter(_runs(output)), None))
    _check_same(output, device.recorded_in(settings))
    accelerator = make_accelerator(device)
    say = Console(quiet=not accelerator.is_main_process, soft_wrap=True, highlight=False).print
    pretrained = find_pretrained(model)
    tokenizer = load_tokenizer(pretrained)
    is_miniature = glue == MINIATURE
    if is_miniature:
        source = str(output / "miniature-glue")
        write_miniature_glue(Path(source))
    fine_tuning = FineTuning(
        pretrained=model,
        source=pretrained,
        tokenizer=tokenizer,
        glue=source,
        output=output,
        max_length=max_length,
        train_samples=train_samples,
        command=finetune_glue,
        config=run,
        device=device,
        is_miniature=is_miniature,
        settings=settings,
    )
    failures: dict[str, Exception] = {}
    for task in chosen:
        try:
            fine_tuning.run(task, named_seeds)
            if predict:
                fine_tuning.predict(task)
        except FAILURES as error:
            if accelerator.num_processes > 1 and not isinstance(error, UnreadableError):
                raise  # the other ranks may wait for this one in vain
            failures[task.name] = error
            say(f"{task.name} failed: {error}", markup=False)
    table = GlueTable(output)
    if accelerator.is_main_process:
        table.save(output)
    say(f"{table.markdown()}Table: {output / 'table.md'}, {output / 'table.json'}", markup=False)
    say(
        f"Models: {output}/TASK/seedK/model\nNext:\n  taskrobust {shlex.join(['compare', str(output), 'ANOTHER_RUN'])}",
        markup=False,
    )
    accelerator.end_training()
    if failures:
        reasons = "; ".join(f"{name}: {error}" for name, error in failures.items())
        raise RuntimeError(
            f"{len(failures)} of {len(chosen)} tasks failed: {reasons} The others are in {output / 'table.md'}. The "
            "same command tries these again."
        ) from next(iter(failures.values()))
    return table


def _seeds(seeds: int | list[int]) -> list[int]:
    named = list(range(seeds)) if isinstance(seeds, int) else seeds
    if not named:
        raise ValueError(f"Expected the number of seeds, at least 1, or a list of seeds such as [0], got {seeds}.")
    return named


def _runs(output: Path) -> list[Path]:
    """The run folders of all tasks and seeds that have started."""
    return sorted(path.parent for task in GLUE for path in (output / task).glob("*/config.yaml"))


def _check_same(output: Path, settings: dict[str, Any]) -> None:
    """All runs of a table differ in their task and seed alone, and those there may be of other tasks and seeds."""
    for run in _runs(output):
        there = yaml.safe_load((run / "config.yaml").read_text())
        check_same_settings(run, there, settings, {*changeable(finetune_glue, settings), "tasks", "seeds"})
