import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from rich.console import Console

from taskrobust._io.manifest import check_same_settings
from taskrobust._io.paths import expand_variables
from taskrobust.nlp.glue.tasks import GLUE, glue_tasks
from taskrobust.training.config import LoopConfig
from taskrobust.training.device import DeviceConfig, resolve_device
from taskrobust.training.optim import OptimConfig
from taskrobust.training.run_folder import MAY_CHANGE, Resume

if TYPE_CHECKING:
    from taskrobust.nlp.glue.table import GlueTable

MINIATURE: Final = "miniature"
"""The source that is generated instead of read."""

_TASKS: Final = list(GLUE)
_EPOCHS: Final = 10


def finetune_glue(
    model: str,
    glue: str,
    output: Path,
    *,
    tasks: list[str] = _TASKS,
    seeds: int | list[int] = 5,
    train_samples: int | None = None,
    max_length: int = 128,
    predict: bool = False,
    loop: LoopConfig = LoopConfig(eval_every=None),  # noqa: B008  # read only
    optim: OptimConfig = OptimConfig(lr=2e-5, weight_decay=0.1, warmup_steps=0.06),  # noqa: B008
    device: DeviceConfig = DeviceConfig(),  # noqa: B008
    resume: Resume = "auto",
    resolved: dict[str, Any],
) -> "GlueTable":
    """Fine-tune a pre-trained model on GLUE and score it on the dev sets, several times a task.

    The output folder holds a run folder TASK/seedK for each task and seed, with the last model in model/ and its scores
    in results.json, and table.md and table.json: the median over seeds of each task, the averages and the worst task.
    Runs that are finished are not repeated. A task that fails does not keep the others from being trained.

    The defaults are those of Table 5: ten epochs, learning rate 2e-5, batches of 32, weight decay 0.1, linear decay,
    and a warm-up of 6 % of the steps.

    Args:
        model: What is fine-tuned: a run folder of ``pretrain-bert``, the folder of a model, or a name on the hub.
        glue: A folder that holds the official folders of the tasks (CoLA, SST-2, ...), the name of a data set that
            ``datasets`` loads, such as nyu-mll/glue, or ``miniature`` for a small GLUE that is generated into the
            output folder.
        output: Folder of the runs and the table.
        tasks: The tasks, by name, or all.
        seeds: Seeds of head, order of the data and dropout. A number says how many: 5 takes 0, 1, 2, 3 and 4. A list
            names them: [0, 3].
        train_samples: Most training samples of a task, always the same ones. None takes all.
        max_length: Most pieces of a sentence or pair; longer ones are cut.
        predict: Whether to write predictions on the test sets, in the leaderboard's format, to submission/ in the
            output folder: those of the seed whose score is the median.
        loop: Steps, batches, logging. Without steps and epochs there are ten epochs. The seed is one of ``seeds``.
        optim: Optimizer and learning rate.
        device: Device, precision and parallelism.
        resume: ``auto`` goes on where an earlier run in the folder stopped. ``never`` wants empty folders.
        resolved: The configuration in plain values, as it is kept in the run folders.

    Raises:
        ValueError: If there is no model or no seed, a task is unknown, or the output folder holds runs of another
            configuration.
        RuntimeError: If tasks failed, after the others are done. It says which and why.

    References:
        Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding, 2018.
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Table 5.
    """
    chosen, named_seeds = glue_tasks(tasks), _seeds(seeds)
    source = expand_variables(glue)

    # What follows takes seconds to import, and neither the options nor a mistake in them need it.
    from taskrobust.nlp.classifier import find_pretrained, load_tokenizer
    from taskrobust.nlp.glue.miniature import write_miniature_glue
    from taskrobust.nlp.glue.runs import FAILURES, FineTuning, UnreadableError
    from taskrobust.nlp.glue.table import GlueTable
    from taskrobust.training.distributed import make_accelerator

    if loop.steps is None and loop.epochs is None:
        loop = replace(loop, epochs=_EPOCHS)
        resolved = resolved | {"loop": {**resolved["loop"], "epochs": _EPOCHS}}
    resolved = {name: value for name, value in resolved.items() if name != "predict"}
    compute = resolve_device(device, next(iter(_runs(output)), None))
    resolved = compute.recorded_in(resolved)
    _check_same(output, resolved)
    accelerator = make_accelerator(compute)
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
        loop=loop,
        optim=optim,
        device=compute,
        resume=resume,
        is_miniature=is_miniature,
        resolved=resolved,
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


def _check_same(output: Path, resolved: dict[str, Any]) -> None:
    """All runs of a table differ in their task and seed alone, and those there may be of other tasks and seeds."""
    for run in _runs(output):
        there = yaml.safe_load((run / "config.yaml").read_text())
        check_same_settings(run, there, resolved, {*MAY_CHANGE, "tasks", "seeds"})
