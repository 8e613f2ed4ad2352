"""Fine-tuning runs on GLUE: one per task and seed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from taskrobust.loss import MultiTaskLoss
from taskrobust.nlp.classifier import SentenceClassifier, load_network
from taskrobust.nlp.glue.encoding import EncodedExamples, drawn, encode
from taskrobust.nlp.glue.files import Examples, read_split, write_predictions
from taskrobust.nlp.glue.scores import GlueScores
from taskrobust.nlp.glue.table import GlueTable, run_path
from taskrobust.nlp.glue.tasks import TABLE_1, GlueTask
from taskrobust.training.config import RunConfig
from taskrobust.training.device import Device
from taskrobust.training.distributed import any_rank, make_accelerator
from taskrobust.training.recipe import HeldOut, Recipe
from taskrobust.training.results import RESULTS, Result, write_results
from taskrobust.training.run import Run
from taskrobust.weighting import Uniform

FAILURES: Final = (ValueError, LookupError, OSError, RuntimeError, ArithmeticError)


class UnreadableError(ValueError):
    """The samples of a task could not be read, and all ranks know it."""


@dataclass(frozen=True)
class _Data:
    """The encoded samples of a task."""

    name: str
    train: EncodedExamples
    dev: dict[str, EncodedExamples]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """The settings that all runs share.

    Args:
        pretrained: The model to fine-tune, as the user named it.
        source: Its folder, or its name on the hub.
        tokenizer: Its tokenizer.
        glue: Source of the examples, see :func:`~taskrobust.nlp.glue.files.read_split`.
        output: Folder of all runs.
        max_length: Maximum number of pieces per example.
        train_samples: Maximum number of training samples per task. None uses all.
        loop: Steps, batches, logging.
        optim: Optimizer and learning rate.
        device: Device, precision and parallelism.
        resume: Whether to resume runs, or to require empty folders.
        is_miniature: Whether ``glue`` is the generated miniature.
        resolved: The configuration in plain values.
    """

    pretrained: str
    source: str
    tokenizer: Any
    glue: str
    output: Path
    max_length: int
    train_samples: int | None
    command: Callable[..., Any]
    config: RunConfig
    device: Device
    is_miniature: bool
    settings: dict[str, Any]

    def run(self, task: GlueTask, seeds: list[int]) -> None:
        """Fine-tune on a task with each seed that has no results yet."""
        data: _Data | None = None
        for seed in seeds:
            path = run_path(self.output, task.name, seed)
            settings = self.settings | {"tasks": [task.name], "seeds": [seed]}
            config = replace(self.config, loop=replace(self.config.loop, seed=seed))
            run = Run.start(self.command, path, config, settings, self.device)
            accelerator = run.accelerator
            if (path / RESULTS).exists():
                continue
            data = data or self._read_on_all_ranks(task, accelerator)
            Console(quiet=not accelerator.is_main_process).rule(f"{task.name}, seed {seed}")
            results = self._train(task, seed, data, run)
            if accelerator.is_main_process:
                write_results(path, results)
                shutil.rmtree(run.folder.checkpoints, ignore_errors=True)
            accelerator.wait_for_everyone()

    def _read_on_all_ranks(self, task: GlueTask, accelerator: Accelerator) -> _Data:
        data: _Data | None = None
        failure: Exception | None = None
        try:
            say = Console(quiet=not accelerator.is_main_process, soft_wrap=True, highlight=False).print
            data = self._read(task, say)
        except FAILURES as error:
            failure = error
        if any_rank(accelerator, failure is not None):
            raise UnreadableError(str(failure or "Another rank could not read its samples.")) from failure
        assert data is not None
        return data

    def _read(self, task: GlueTask, say: Callable[..., None]) -> _Data:
        if self.is_miniature and task.generator is None:
            raise ValueError(
                f"Expected a task of the miniature GLUE, got {task.name}, which has no generator: set --glue to the "
                "official files, or leave the task out of --tasks."
            )
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

    def _train(self, task: GlueTask, seed: int, data: _Data, run: Run) -> list[Result]:
        torch.manual_seed(seed)  # of the new head
        model = self._load(self.source, task, run.accelerator)
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
            criterion=MultiTaskLoss([task.name], Uniform(), on_nonfinite=self.config.on_nonfinite),
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
        trainer = run.trainer(recipe)
        evaluations = {task.name: trainer.train()} | trainer.reported
        return [
            Result(
                task=name,
                title=task.folder + name.removeprefix(task.name),
                place=[*TABLE_1, name].index(name),
                counted=name == task.name,
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
        """Write test predictions of the model with the median score."""
        accelerator = make_accelerator(self.device)
        row = GlueTable(self.output).rows[task.name]
        source = str(run_path(self.output, task.name, row.median_seed) / "model")
        model = self._load(source, task, accelerator).to(accelerator.device).eval()
        for name, split in task.test.items():
            examples = read_split(self.glue, task, split)
            predictions = _predict(model, self._encode(examples), self.config.loop.batch_size, accelerator)
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
