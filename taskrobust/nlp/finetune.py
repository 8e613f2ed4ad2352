import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from taskrobust.loss import MultiTaskLoss
from taskrobust.nlp.classifier import SentenceClassifier, find_pretrained, load_network, load_tokenizer
from taskrobust.nlp.glue.encoding import EncodedExamples, drawn, encode
from taskrobust.nlp.glue.miniature import write_miniature_glue
from taskrobust.nlp.glue.reading import Examples, read_split
from taskrobust.nlp.glue.scores import GlueScores
from taskrobust.nlp.glue.submission import write_predictions
from taskrobust.nlp.glue.table import GlueTable, run_path
from taskrobust.nlp.glue.tasks import GLUE, GlueTask, glue_tasks
from taskrobust.paths import filled_in
from taskrobust.training.config import LoopConfig
from taskrobust.training.device import Device, DeviceConfig, resolve_device
from taskrobust.training.distributed import any_rank, make_accelerator
from taskrobust.training.header import print_start
from taskrobust.training.loop import Trainer
from taskrobust.training.optim import OptimConfig
from taskrobust.training.recipe import HeldOut, Recipe
from taskrobust.training.results import RESULTS, Result, write_results
from taskrobust.training.run_folder import Resume, RunFolder, differences
from taskrobust.weighting import Uniform

MINIATURE: Final = "miniature"
"""The source that is generated instead of read."""

_TASKS: Final = list(GLUE)
_EPOCHS: Final = 10
_FAILURES: Final = (ValueError, LookupError, OSError, RuntimeError, ArithmeticError)


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
) -> GlueTable:
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
        optim: Optimiser and learning rate.
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
    if loop.steps is None and loop.epochs is None:
        loop = replace(loop, epochs=_EPOCHS)
        resolved = resolved | {"loop": {**resolved["loop"], "epochs": _EPOCHS}}
    resolved = {name: value for name, value in resolved.items() if name != "predict"}
    compute = resolve_device(device, next(iter(_runs(output)), None))
    resolved = compute.recorded_in(resolved)
    _check_same(output, resolved)
    accelerator = make_accelerator(compute)
    say = Console(quiet=not accelerator.is_main_process, soft_wrap=True, highlight=False).print
    source = find_pretrained(model)
    tokenizer = load_tokenizer(source)
    is_miniature = glue == MINIATURE
    if is_miniature:
        glue = str(output / "miniature-glue")
        write_miniature_glue(Path(glue))
    fine_tuning = _FineTuning(
        pretrained=model,
        source=source,
        tokenizer=tokenizer,
        glue=filled_in(glue),
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
        except _FAILURES as error:
            if accelerator.num_processes > 1 and not isinstance(error, _UnreadableError):
                raise  # the other ranks may wait for this one in vain
            failures[task.name] = error
            say(f"{task.name} failed: {error}", markup=False)
    table = GlueTable(output)
    if accelerator.is_main_process:
        table.save(output)
    say(f"{table.markdown()}\nTable: {output / 'table.md'}, {output / 'table.json'}", markup=False)
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
    here = {name: value for name, value in resolved.items() if name not in ("tasks", "seeds")}
    for run in _runs(output):
        config = yaml.safe_load((run / "config.yaml").read_text())
        there = {name: value for name, value in config.items() if name not in ("tasks", "seeds")}
        changed = differences(there, here)
        if changed:
            raise ValueError(
                f"The runs of {output} make one table, and {run} is of another configuration: "
                f"{'; '.join(changed)}. Choose another --output."
            )


class _UnreadableError(ValueError):
    """The samples of a task could not be read, which all ranks know."""


@dataclass(frozen=True)
class _Data:
    """A task's samples as a model reads them."""

    name: str
    train: EncodedExamples
    dev: dict[str, EncodedExamples]


@dataclass(frozen=True, kw_only=True)
class _FineTuning:
    """What all runs have in common."""

    pretrained: str
    source: str
    tokenizer: Any
    glue: str
    output: Path
    max_length: int
    train_samples: int | None
    loop: LoopConfig
    optim: OptimConfig
    device: Device
    resume: Resume
    is_miniature: bool
    resolved: dict[str, Any]

    def run(self, task: GlueTask, seeds: list[int]) -> None:
        """Fine-tune on a task with each seed that is not finished."""
        data: _Data | None = None
        for seed in seeds:
            accelerator = make_accelerator(self.device)
            path = run_path(self.output, task.name, seed)
            config = self.resolved | {"tasks": [task.name], "seeds": [seed]}
            with accelerator.main_process_first():
                run = RunFolder(path, config, self.resume, accelerator.is_main_process)
            if (path / RESULTS).exists():
                continue
            data = data or self._read_on_all_ranks(task, accelerator)
            Console(quiet=not accelerator.is_main_process).rule(f"{task.name}, seed {seed}")
            results = self._train(task, seed, data, run, accelerator)
            if accelerator.is_main_process:
                write_results(path, results)
                shutil.rmtree(run.checkpoints, ignore_errors=True)
            accelerator.wait_for_everyone()

    def _read_on_all_ranks(self, task: GlueTask, accelerator: Accelerator) -> _Data:
        data: _Data | None = None
        failure: Exception | None = None
        try:
            say = Console(quiet=not accelerator.is_main_process, soft_wrap=True, highlight=False).print
            data = self._read(task, say)
        except _FAILURES as error:
            failure = error
        if any_rank(accelerator, failure is not None):
            raise _UnreadableError(str(failure or "Another rank could not read its samples.")) from failure
        assert data is not None
        return data

    def _read(self, task: GlueTask, say: Callable[..., None]) -> _Data:
        train = read_split(self.glue, task, "train")
        dev = {name: read_split(self.glue, task, split) for name, split in task.dev.items()}
        for examples in (train, *dev.values()):
            if examples.left_out:
                say(examples.left_out, markup=False)
        name = "miniature GLUE" if self.is_miniature else "GLUE"
        if self.train_samples is not None and self.train_samples < len(train):
            train = drawn(train, self.train_samples)
            name = f"{name}, {self.train_samples} training samples"
        return _Data(name, self._encode(train), {name: self._encode(examples) for name, examples in dev.items()})

    def _encode(self, examples: Examples) -> EncodedExamples:
        return encode(examples, self.tokenizer, self.max_length)

    def _train(self, task: GlueTask, seed: int, data: _Data, run: RunFolder, accelerator: Accelerator) -> list[Result]:
        torch.manual_seed(seed)  # of the new head
        model = self._load(self.source, task, accelerator)
        if self.device.config.compile:
            model.network.base_model.compile(dynamic=True)

        def export(trained: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
            assert isinstance(trained, SentenceClassifier)
            parameters = {name.removeprefix("network."): value for name, value in state.items()}
            trained.network.save_pretrained(folder, state_dict=parameters)
            self.tokenizer.save_pretrained(folder)

        dev = {
            name: HeldOut(samples=examples, collate=examples.collate, scores=lambda _: GlueScores(task))
            for name, examples in data.dev.items()
        }
        layer_names = model.network._no_split_modules or ()
        recipe = Recipe(
            model=model,
            criterion=MultiTaskLoss([task.name], Uniform()),
            data=data.train,
            collate=data.train.collate,
            held_out=dev[task.name],
            export=export,
            task_counts=lambda batch: batch["labels"].new_full((1,), len(batch["labels"]), dtype=torch.float32),
            layers=tuple({type(module) for module in model.modules() if type(module).__name__ in layer_names}),
            keep_best=False,
            reports={name: held_out for name, held_out in dev.items() if name != task.name},
            report_from="last",
            lengths=data.train.widths,
        )
        trainer = Trainer(recipe, run, replace(self.loop, seed=seed), self.optim, accelerator)
        print_start("finetune-glue", trainer, self.device)
        evaluations = {task.name: trainer.train()} | trainer.reported
        return [
            Result(
                task=name,
                metric=task.metrics[0],
                value=evaluation.scores[task.metrics[0]],
                metrics=evaluation.scores,
                split=task.dev[name],
                data=data.name,
                model="last",
                step=trainer.progress.step,
                seed=seed,
                pretrained=self.pretrained,
            )
            for name, evaluation in evaluations.items()
        ]

    def predict(self, task: GlueTask) -> None:
        """Write predictions on the test sets by the model whose score is the median."""
        accelerator = make_accelerator(self.device)
        row = GlueTable(self.output).rows[task.name]
        source = str(run_path(self.output, task.name, row.median_seed) / "model")
        model = self._load(source, task, accelerator).to(accelerator.device).eval()
        for name, split in task.test.items():
            examples = read_split(self.glue, task, split)
            predictions = _predict(model, self._encode(examples), self.loop.batch_size, accelerator)
            if accelerator.is_main_process:
                path = self.output / "submission" / f"{name}.tsv"
                write_predictions(path, task, examples.ids, predictions)
                Console(soft_wrap=True).print(f"{path}: predictions of seed {row.median_seed}", markup=False)

    def _load(self, source: str, task: GlueTask, accelerator: Accelerator) -> SentenceClassifier:
        network = load_network(source, task.labels)
        if accelerator.device.type == "cpu" and self.device.precision == "bf16":
            network.set_attn_implementation("eager")  # sdpa's backward pass is slow in bf16 there
        return SentenceClassifier(network)


@torch.inference_mode()
def _predict(
    model: SentenceClassifier, samples: EncodedExamples, batch_size: int, accelerator: Accelerator
) -> NDArray[np.float64]:
    """Class numbers or scores, [N], on every rank."""
    by_length = np.argsort(samples.lengths)
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
    parts = []
    for indices in batches[accelerator.process_index :: accelerator.num_processes]:
        batch = {name: value.to(accelerator.device) for name, value in samples.collate(indices).items()}
        with accelerator.autocast():
            parts.append((indices, model(**batch).predictions))
    predictions = np.empty(len(samples))
    for indices, predicted in gather_object([(indices, predicted.cpu().numpy()) for indices, predicted in parts]):
        predictions[indices] = predicted
    return predictions
