import math
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.flop_counter import FlopCounterMode

from taskrobust._inputs import Losses
from taskrobust._io.atomic import remove_leftovers
from taskrobust.outputs import TaskLosses, pool_batches
from taskrobust.training.callbacks import Callback, Pictures, ProgressBar, Trackers
from taskrobust.training.checkpoint import CheckpointError, Checkpoints, ExportError, Stateful, export_model
from taskrobust.training.config import LoopConfig, RunConfig
from taskrobust.training.data import ErrorsAsBatches, ErrorsAsSamples, GlobalBatchSampler, Key, Samples
from taskrobust.training.distributed import Interruption, any_rank, ignore_in_worker, settle, shard
from taskrobust.training.evaluation import Evaluation, evaluate
from taskrobust.training.metrics import Metrics, peak_flops
from taskrobust.training.optim import make_average, make_optimizer, make_schedule
from taskrobust.training.recipe import Batch, HeldOut, Recipe
from taskrobust.training.run_folder import RunFolder


class _Progress:
    """The position in the run."""

    def __init__(self) -> None:
        self.step = 0
        self.samples = 0
        self.best = float("inf")
        self.best_step = 0

    def state_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Console(Console):
    """A console whose output may end, by a broken pipe or on a full disk, while the run continues."""

    def on_broken_pipe(self) -> None:
        """Print to nowhere from now on."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Trainer:
    """Trains a recipe in a run folder, and resumes where an earlier process of the same run stopped.

    Args:
        recipe: Model, data and criterion.
        folder: The run folder.
        config: The settings of the run.
        accelerator: Device, precision and process group.

    Attributes:
        progress: The step and the samples so far.
        criterion: The criterion; ``criterion.last`` has the values of the last step.
        bare_model: The model without wrappers.
        callbacks: Called in this order: those that log and show, then those of the configuration.
        reported: The evaluations of ``recipe.reports``, at the end.
        should_stop: Set it to end training after the current step, as if it were the last.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, config: RunConfig, accelerator: Accelerator) -> None:
        loop, optim = config.loop, config.optim
        self.recipe = recipe
        self.folder = folder
        self.config = config
        self.samples_per_step = loop.batch_size * loop.accumulation * accelerator.num_processes
        steps_per_epoch = len(recipe.data) / self.samples_per_step
        self.steps = _steps(loop, steps_per_epoch)
        self.eval_every = loop.eval_every or math.ceil(steps_per_epoch)
        self.accelerator = accelerator
        self.is_main = accelerator.is_main_process
        self.console = _Console()
        self.criterion = recipe.criterion.to(accelerator.device)
        self.reference = None
        if recipe.reference is not None:
            self.reference = recipe.reference.requires_grad_(False).eval().to(accelerator.device)
        sharded = accelerator.is_fsdp2
        if sharded and (optim.average != "none" or list(self.criterion.parameters())):
            raise ValueError(
                "Expected average='none' and a weighting without parameters with parallel='fsdp2', got "
                f"{optim.average!r} and {type(self.criterion.weighting).__name__}. Use parallel='ddp'."
            )
        if sharded and recipe.reports and recipe.report_from == "best":
            raise ValueError("Expected parallel='ddp' to report from the best model, got 'fsdp2'.")
        if sharded:
            shard(recipe.model, recipe.layers, accelerator)
        optimizer = make_optimizer(recipe.model, self.criterion, optim, recipe.depth_of)
        self.criterion.guard(optimizer)
        self.schedule = make_schedule(optimizer, optim, self.steps)
        self.model = accelerator.prepare_model(recipe.model, evaluation_mode=sharded)  # which wraps nothing
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self.bare_model: nn.Module = accelerator.unwrap_model(self.model, keep_torch_compile=False)
        self.average = make_average(self.bare_model, optim)
        self.progress = _Progress()
        self.reported: dict[str, Evaluation] = {}
        self.should_stop = False
        self._checkpointed: int | None = None
        self.callbacks: list[Callback] = [Trackers(config.trackers), ProgressBar(), Pictures(), *config.callbacks]
        self.metrics = Metrics(
            folder.metrics,
            self.criterion,
            self.steps,
            loop.log_every,
            accelerator.device,
            self.is_main,
            report=lambda line: self._call("on_metrics", line),
            say=self.say,
        )
        parts: dict[str, Stateful] = {
            "progress": self.progress,
            "criterion": self.criterion,
            "schedule": self.schedule,
            "metrics": self.metrics,
        }
        if self.average is not None:
            parts["average"] = self.average
        self.checkpoints = Checkpoints(folder.checkpoints, accelerator, parts, folder.id)

    def train(self) -> Evaluation:
        """Train to the last step and return the last evaluation on held-out data; ``reported`` has the reports.

        Raises:
            ValueError: If the number of samples per step differs from that of the run so far.
            SystemExit: After a checkpoint, if the process was asked to stop: 130 by Ctrl-C, 143 by SIGTERM, 129 by
                SIGHUP.
            CheckpointError: If the last checkpoint could not be written, or no checkpoint can be read.
            ExportError: If the trained model could not be written. The last checkpoint holds it.
            OSError: If the disk is full and lines of metrics.jsonl are pending. The last checkpoint holds them.
        """
        try:
            if self.is_main:
                remove_leftovers(self.folder.path)
            self._resume()
            with Interruption() as interruption, closing(self._batches()) as batches:
                self._train_to_the_end(interruption, batches)
            self._checkpoint()  # before the evaluation, which is repeated if the same command is given again
            evaluation = self._evaluate()
            self._export(self.folder.model, evaluation)
            self._report()
            self.metrics.finish()
        finally:
            self.folder.release()
            self._call("on_end")
            settle(self.accelerator)
        return evaluation

    def say(self, text: str) -> None:
        """Print a line above the progress bar, once for all ranks."""
        if not self.is_main:
            return
        try:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        except OSError:
            self.console.on_broken_pipe()

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and exported: the average of the parameters if there is one."""
        return self.bare_model if self.average is None else self.average.module

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def _resume(self) -> None:
        torch.manual_seed(self.config.loop.seed + self.accelerator.process_index)  # dropout
        chosen = self.config.resume_from
        self._checkpointed = self.checkpoints.load(chosen)
        if chosen is not None and self._checkpointed is None:
            raise CheckpointError(f"Expected a checkpoint of step {chosen} in {self.checkpoints.folder}, got none.")
        if self._checkpointed is not None:
            self._check_samples()
            self.say(f"Resuming from step {self.progress.step} of {self.folder.path}.")
        self.metrics.start(self.progress.step, self.progress.samples)
        self._call("on_start")
        self.model.train()
        self.criterion.train()

    def _train_to_the_end(self, interruption: Interruption, batches: Iterator[Batch]) -> None:
        progress, loop = self.progress, self.config.loop
        while progress.step < self.steps and not self.should_stop:
            self._step(batches)
            last = progress.step == self.steps or self.should_stop
            if progress.step % self.eval_every == 0 and not last:
                self._evaluate()
            if progress.step % loop.checkpoint_every == 0 and not last:
                self._checkpoint_if_possible()
            # All ranks ask in the same step. The clock of a torchrun that was told to stop runs out in 30 s.
            asks = self.accelerator.num_processes == 1 or progress.step % min(loop.log_every, 10) == 0
            if asks and not last and interruption.agreed(self.accelerator.device):
                self._checkpoint()
                self.say(
                    f"Stopped after step {progress.step} by {interruption.received or 'another rank'}, with a "
                    "checkpoint. The same command resumes."
                )
                raise SystemExit(interruption.exit_code)

    def _check_samples(self) -> None:
        before, loop = self.progress.samples // self.progress.step, self.config.loop
        if before != self.samples_per_step:
            raise ValueError(
                f"Expected {before} samples per step, as in the run so far, got {self.samples_per_step}: batch_size "
                f"{loop.batch_size} x accumulation {loop.accumulation} x {self.accelerator.num_processes} "
                "processes. Choose the batch_size that fits this number of processes."
            )

    def _batches(self) -> Generator[Batch]:
        sampler = GlobalBatchSampler(
            len(self.recipe.data),
            self.config.loop.batch_size,
            self.config.loop.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.progress.samples,
            self.recipe.lengths,
            self.samples_per_step,
        )
        yield from self._load(self.recipe.data, sampler, self.recipe.collate)

    def _load(self, data: Samples, keys: Iterable[list[Key]], collate: Callable[[Any], Batch]) -> Generator[Batch]:
        """Batches of the samples with the given keys."""
        loader = DataLoader(
            cast(Dataset[Any], ErrorsAsSamples(data)),
            batch_sampler=cast(Sampler[list[int]], keys),
            collate_fn=ErrorsAsBatches(collate),
            num_workers=self.config.loop.workers,
            pin_memory=self.accelerator.device.type == "cuda",
            worker_init_fn=ignore_in_worker,
            generator=torch.Generator(),  # else the loader draws from the generator that dropout uses
        )
        batches = iter(loader)
        try:
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            if self.config.loop.workers > 0:
                # Not left to the garbage collector: the traceback of an error keeps the loader, and a process that
                # ends waits for workers that are not told to.
                batches._shutdown_workers()  # type: ignore[attr-defined]

    def _step(self, batches: Iterator[Batch]) -> None:
        device = self.accelerator.device
        begin = time.perf_counter()
        try:
            loaded = [next(batches) for _ in range(self.config.loop.accumulation)]
        except Exception:
            self._checkpoint_before_failure()
            raise
        loading = time.perf_counter() - begin
        window = [{name: value.to(device, non_blocking=True) for name, value in batch.items()} for batch in loaded]
        with self._counting_flops(), self._window(window):
            for number, batch in enumerate(window, start=1):
                with nullcontext() if number == len(window) else self.accelerator.no_sync(self.model):
                    with self.accelerator.autocast():  # which a sharded model does not enter by itself
                        outputs = self.model(**batch)
                        reference = self._reference(batch)
                    self.accelerator.backward(self.criterion(outputs, reference=reference))
        lr = float(self.schedule.get_last_lr()[0])
        gradient_norm = self._update()
        progress, samples = self.progress, len(self.recipe.data)
        epoch = progress.samples // samples
        progress.samples += self.samples_per_step
        progress.step += 1
        if progress.samples // samples > epoch:
            self.criterion.end_epoch()
        self.metrics.step(progress.step, progress.samples, gradient_norm, lr, loading)
        self._call("on_step")

    @contextmanager
    def _counting_flops(self) -> Iterator[None]:
        """Count the operations of this process's first step, where their share of the peak can be told."""
        is_first = self.metrics.flops_per_step is None and not self.config.device.compile
        if not is_first or self.accelerator.is_fsdp2 or peak_flops(self.accelerator.device) is None:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self.metrics.flops_per_step = counter.get_total_flops()

    def _window(self, window: list[dict[str, Tensor]]) -> AbstractContextManager[None]:
        if len(window) == 1:
            return nullcontext()
        if self.config.loop.window_weights == "running":
            return self.criterion.accumulate(counts=torch.stack([self.recipe.task_counts(b) for b in window]).sum(0))
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        autocast = self.accelerator.autocast()
        with torch.no_grad(), autocast, torch.random.fork_rng(devices):  # the second pass draws the same dropout
            losses = pool_batches(self._losses(batch) for batch in window)
        return self.criterion.accumulate(losses=losses)

    def _losses(self, batch: Batch) -> TaskLosses:
        """Losses of the model, beside those of the reference model if there is one."""
        losses = self.criterion.as_task_losses(self.model(**batch))
        reference = self._reference(batch)
        return losses if reference is None else losses.with_reference(self.criterion.as_task_losses(reference))

    @torch.no_grad()
    def _reference(self, batch: Batch) -> Losses | None:
        """Losses of the reference model."""
        return None if self.reference is None else self.reference(**batch)

    def _update(self) -> Tensor:
        gradient_norm = torch.full((), torch.nan, device=self.accelerator.device)
        if self.config.optim.clip_norm > 0:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_norm)
            gradient_norm = cast(Tensor, norm.full_tensor() if isinstance(norm, DTensor) else norm).detach()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.bare_model)
        return gradient_norm

    def _evaluate(self) -> Evaluation:
        model, selection = self.evaluated_model, self.recipe.selection
        evaluation = self._evaluate_on(self.recipe.held_out, model)
        badness = evaluation.worst if selection is None else -evaluation.scores[selection]
        best = self.recipe.keep_best and badness < self.progress.best and self._export_if_possible(evaluation)
        if best:
            self.progress.best, self.progress.best_step = badness, self.progress.step
        self._record(evaluation, "held_out", best)
        return evaluation

    def _record(self, evaluation: Evaluation, split: str, best: bool) -> None:
        self.metrics.evaluation(self.progress.step, evaluation, split, best)
        self._call("on_evaluation", evaluation, split, best)

    def _evaluate_on(self, held_out: HeldOut, model: nn.Module) -> Evaluation:
        device = self.accelerator.device
        scores = None if held_out.scores is None else held_out.scores(device)
        batches = self._held_out_batches(held_out)
        return evaluate(model, self.criterion, batches, self.accelerator.autocast, device, scores, self.reference)

    def _report(self) -> None:
        """Evaluate the reports, once."""
        model, recipe = self.evaluated_model, self.recipe
        best = recipe.report_from == "best"
        if recipe.reports and best:
            assert recipe.load is not None
            if self.accelerator.is_main_process:
                recipe.load(model, self.folder.best)
            broadcast(list(model.state_dict().values()))
        for name, held_out in recipe.reports.items():
            self.reported[name] = self._evaluate_on(held_out, model)
            self._record(self.reported[name], name, best)

    def _held_out_batches(self, held_out: HeldOut) -> Iterator[tuple[Batch, bool]]:
        """The same number of batches on every rank; those beyond the last sample do not count."""
        size, rank, ranks = self.config.loop.batch_size, self.accelerator.process_index, self.accelerator.num_processes
        number = len(held_out.samples) if held_out.number is None else held_out.number
        firsts = [start + rank * size for start in range(0, number, ranks * size)]
        keys = [[(i, 0) for i in range(first, min(first + size, number))] for first in firsts]
        with closing(self._load(held_out.samples, [k or [(0, 0)] for k in keys], held_out.collate)) as batches:
            yield from zip(batches, map(bool, keys), strict=True)

    def _checkpoint(self) -> None:
        if self.progress.step == self._checkpointed:
            return
        self.criterion.check_finite()
        self.checkpoints.save(self.progress.step)
        self._checkpointed = self.progress.step
        self._call("on_checkpoint")

    def _checkpoint_if_possible(self) -> None:
        try:
            self._checkpoint()
        except CheckpointError as error:
            self.say(f"{error} Training continues; make room, or the run ends with an error.")

    def _checkpoint_before_failure(self) -> None:
        """Keep the steps so far if the data of the next one cannot be read, as from a disk that is away.

        Other ranks may be in the middle of the step, where none can write a checkpoint.
        """
        step = self.progress.step
        if self.accelerator.num_processes > 1 or step == 0 or step == self._checkpointed:
            return
        try:
            self._checkpoint_if_possible()
        except Exception:  # the state is not one to keep; the error to show is that of the data
            return
        if self._checkpointed == step:
            self.say(f"The data of step {step + 1} cannot be read. The same command resumes from step {step}.")

    def _export_if_possible(self, evaluation: Evaluation) -> bool:
        try:
            self._export(self.folder.best, evaluation)
        except ExportError as error:
            self.say(f"{error} Training continues; the best model before is intact.")
            return False
        return True

    def _export(self, folder: Path, evaluation: Evaluation) -> None:
        # Called by all ranks, which may each hold a share of the model.
        sharded = self.accelerator.is_fsdp2
        state = self.accelerator.get_state_dict(self.model) if sharded else self.evaluated_model.state_dict()
        failure: Exception | None = None
        if self.accelerator.is_main_process:
            write = partial(self.recipe.export, self.evaluated_model, state)
            failure = export_model(folder, write, self.progress.step, evaluation)
        if any_rank(self.accelerator, failure is not None):
            reason = failure if failure is not None else "the main rank failed"
            raise ExportError(
                f"The model of step {self.progress.step} could not be written to {folder} ({reason})."
            ) from failure


def _steps(loop: LoopConfig, steps_per_epoch: float) -> int:
    if loop.steps is not None and loop.epochs is not None:
        raise ValueError(
            f"Expected loop.steps or loop.epochs, got {loop.steps} steps and {loop.epochs} epochs. Set one to null."
        )
    return math.ceil(loop.epochs * steps_per_epoch) if loop.epochs is not None else loop.steps or 1000
