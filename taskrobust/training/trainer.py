import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, Sampler

from taskrobust._io.atomic import remove_leftovers
from taskrobust.outputs import pool_batches
from taskrobust.training.checkpoint import CheckpointError, Checkpoints
from taskrobust.training.config import LoopConfig
from taskrobust.training.distributed import any_rank, settle, shard
from taskrobust.training.evaluation import Evaluation, evaluate
from taskrobust.training.exporting import ExportError, export_model, save_pictures
from taskrobust.training.interruption import Interruption, ignore_in_worker
from taskrobust.training.loading import ErrorsAsBatches, ErrorsAsSamples, Samples
from taskrobust.training.optim import OptimConfig, make_average, make_optimizer, make_schedule
from taskrobust.training.recipe import Batch, HeldOut, Recipe
from taskrobust.training.run_folder import RunFolder
from taskrobust.training.sampling import GlobalBatchSampler, Key
from taskrobust.training.tracking import Tracker


class _Progress:
    """Where the run is."""

    def __init__(self) -> None:
        self.step = 0
        self.samples = 0
        self.best = float("inf")
        self.best_step = 0

    def state_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Trainer:
    """Trains a recipe in a run folder, and goes on where an earlier process of the same run stopped.

    Args:
        recipe: What is trained.
        run: Where it is kept.
        loop: See there.
        optim: See there.
        accelerator: Device, precision and process group.
    """

    def __init__(
        self, recipe: Recipe, run: RunFolder, loop: LoopConfig, optim: OptimConfig, accelerator: Accelerator
    ) -> None:
        self.recipe = recipe
        self.run = run
        self.samples_per_step = loop.batch_size * loop.accumulation * accelerator.num_processes
        steps_per_epoch = len(recipe.data) / self.samples_per_step
        self.loop = loop
        self.steps = _steps(loop, steps_per_epoch)
        self.eval_every = loop.eval_every or math.ceil(steps_per_epoch)
        self.optim = optim
        self.accelerator = accelerator
        self.criterion = recipe.criterion.to(accelerator.device)
        sharded = accelerator.is_fsdp2
        if sharded and (optim.average != "none" or list(self.criterion.parameters())):
            raise ValueError(
                "Expected average='none' and a weighting without parameters of its own with parallel='fsdp2', got "
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
        self._checkpointed: int | None = None
        main = accelerator.is_main_process
        self.tracker = Tracker(run.metrics, self.criterion, self.steps, loop.log_every, accelerator.device, main)
        self.checkpoints = Checkpoints(run.checkpoints, accelerator)
        kept = (self.progress, self.criterion, self.schedule, self.tracker, self.average)
        accelerator.register_for_checkpointing(*(part for part in kept if part is not None))

    def train(self) -> Evaluation:
        """Train to the last step and return the last evaluation on held-out data; ``reported`` has the reports.

        Raises:
            ValueError: If a step has more or fewer samples than in the run so far, or another process is training in
                the run folder.
            SystemExit: After a checkpoint, if the process was asked to stop: 130 by Ctrl-C, 143 by SIGTERM.
            CheckpointError: If the last checkpoint could not be written, or none that is there can be read.
            ExportError: If the trained model could not be written. The last checkpoint holds it.
            OSError: If the disk is full and lines of metrics.jsonl wait. The last checkpoint holds them.
        """
        try:
            with self.run.exclusive() if self.accelerator.is_main_process else nullcontext():
                if self.accelerator.is_main_process:
                    remove_leftovers(self.run.path)
                self._resume()
                with Interruption() as interruption, closing(self._batches()) as batches:
                    self._train_to_the_end(interruption, batches)
                self._checkpoint()  # before the evaluation, which is repeated if the same command is given again
                evaluation = self._evaluate()
                self._export(self.run.model, evaluation)
                self._report()
                self.tracker.finish()
        finally:
            self.tracker.close()
            settle(self.accelerator)
        return evaluation

    def _resume(self) -> None:
        torch.manual_seed(self.loop.seed + self.accelerator.process_index)  # dropout
        self._checkpointed = self.checkpoints.load_newest()
        if self._checkpointed is not None:
            self._check_samples()
            self.tracker.say(f"Going on from step {self.progress.step} of {self.run.path}.")
        self.tracker.start(self.progress.step, self.progress.samples)
        self.model.train()
        self.criterion.train()

    def _train_to_the_end(self, interruption: Interruption, batches: Iterator[Batch]) -> None:
        progress, loop = self.progress, self.loop
        while progress.step < self.steps:
            self._step(batches)
            last = progress.step == self.steps
            if progress.step % self.eval_every == 0 and not last:
                self._evaluate()
            if progress.step % loop.checkpoint_every == 0 and not last:
                self._checkpoint_if_possible()
            # All ranks ask in the same step. The clock of a torchrun that was told to stop runs out in 30 s.
            asks = self.accelerator.num_processes == 1 or progress.step % min(loop.log_every, 10) == 0
            if asks and not last and interruption.agreed(self.accelerator.device):
                self._checkpoint()
                self.tracker.say(
                    f"Stopped after step {progress.step} by {interruption.received or 'another rank'}, with a "
                    "checkpoint. The same command goes on."
                )
                raise SystemExit(interruption.exit_code)

    def _check_samples(self) -> None:
        before = self.progress.samples // self.progress.step
        if before != self.samples_per_step:
            raise ValueError(
                f"Expected {before} samples a step, as in the run so far, got {self.samples_per_step}: batch_size "
                f"{self.loop.batch_size} x accumulation {self.loop.accumulation} x {self.accelerator.num_processes} "
                "processes. Choose the batch_size that fits this number of processes."
            )

    def _batches(self) -> Generator[Batch]:
        sampler = GlobalBatchSampler(
            len(self.recipe.data),
            self.loop.batch_size,
            self.loop.seed,
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
            num_workers=self.loop.workers,
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
            if self.loop.workers > 0:
                # Not left to the garbage collector: the traceback of an error keeps the loader, and a process that
                # ends waits for workers that are not told to.
                batches._shutdown_workers()  # type: ignore[attr-defined]

    def _step(self, batches: Iterator[Batch]) -> None:
        device = self.accelerator.device
        window = [
            {name: value.to(device, non_blocking=True) for name, value in next(batches).items()}
            for _ in range(self.loop.accumulation)
        ]
        with self._window(window):
            for number, batch in enumerate(window, start=1):
                with nullcontext() if number == len(window) else self.accelerator.no_sync(self.model):
                    with self.accelerator.autocast():  # which a sharded model does not enter by itself
                        outputs = self.model(**batch)
                    self.accelerator.backward(self.criterion(outputs))
        lr = float(self.schedule.get_last_lr()[0])
        gradient_norm = self._update()
        progress, samples = self.progress, len(self.recipe.data)
        epoch = progress.samples // samples
        progress.samples += self.samples_per_step
        progress.step += 1
        if progress.samples // samples > epoch:
            self.criterion.end_epoch()
        self.tracker.step(progress.step, progress.samples, gradient_norm, lr)

    def _window(self, window: list[dict[str, Tensor]]) -> AbstractContextManager[None]:
        if len(window) == 1:
            return nullcontext()
        if self.loop.window_weights == "running":
            return self.criterion.accumulate(counts=torch.stack([self.recipe.task_counts(b) for b in window]).sum(0))
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        autocast = self.accelerator.autocast()
        with torch.no_grad(), autocast, torch.random.fork_rng(devices):  # the second pass draws the same dropout
            losses = pool_batches(self.model(**batch) for batch in window)
        return self.criterion.accumulate(losses=losses)

    def _update(self) -> Tensor:
        gradient_norm = torch.full((), torch.nan, device=self.accelerator.device)
        if self.optim.clip_norm > 0:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.optim.clip_norm)
            gradient_norm = cast(Tensor, norm.full_tensor() if isinstance(norm, DTensor) else norm).detach()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.bare_model)
        return gradient_norm

    def _averaged_model(self) -> nn.Module:
        return self.bare_model if self.average is None else self.average.module

    def _evaluate(self) -> Evaluation:
        model, selection = self._averaged_model(), self.recipe.selection
        evaluation = self._evaluate_on(self.recipe.held_out, model)
        badness = evaluation.worst if selection is None else -evaluation.scores[selection]
        best = self.recipe.keep_best and badness < self.progress.best and self._export_if_possible(evaluation)
        if best:
            self.progress.best, self.progress.best_step = badness, self.progress.step
        self.tracker.evaluation(self.progress.step, evaluation, best)
        self._draw(model)
        return evaluation

    def _evaluate_on(self, held_out: HeldOut, model: nn.Module) -> Evaluation:
        device = self.accelerator.device
        scores = None if held_out.scores is None else held_out.scores(device)
        batches = self._held_out_batches(held_out)
        return evaluate(model, self.criterion, batches, self.accelerator.autocast, device, scores)

    def _report(self) -> None:
        """Evaluate, once, what no choice was made by."""
        model, recipe, progress = self._averaged_model(), self.recipe, self.progress
        best = recipe.report_from == "best"
        if recipe.reports and best:
            assert recipe.load is not None
            if self.accelerator.is_main_process:
                recipe.load(model, self.run.best)
            broadcast(list(model.state_dict().values()))
        for name, held_out in recipe.reports.items():
            self.reported[name] = self._evaluate_on(held_out, model)
            self.tracker.evaluation(progress.step, self.reported[name], best, split=name)

    def _draw(self, model: nn.Module) -> None:
        if self.recipe.pictures is None or not self.accelerator.is_main_process or self.accelerator.is_fsdp2:
            return
        training = model.training
        model.eval()
        with self.accelerator.autocast():
            pictures = self.recipe.pictures(model)
        model.train(training)
        try:
            save_pictures(self.run.pictures, pictures, self.progress.step)
        except OSError as error:
            self.tracker.say(f"The pictures of step {self.progress.step} could not be written ({error}).")

    def _held_out_batches(self, held_out: HeldOut) -> Iterator[tuple[Batch, bool]]:
        """As many batches on every rank; one beyond the last sample does not count."""
        size, rank, ranks = self.loop.batch_size, self.accelerator.process_index, self.accelerator.num_processes
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

    def _checkpoint_if_possible(self) -> None:
        try:
            self._checkpoint()
        except CheckpointError as error:
            self.tracker.say(f"{error} Training goes on; make room, or the run ends with an error.")

    def _export_if_possible(self, evaluation: Evaluation) -> bool:
        try:
            self._export(self.run.best, evaluation)
        except ExportError as error:
            self.tracker.say(f"{error} Training goes on; what was best before is whole.")
            return False
        return True

    def _export(self, folder: Path, evaluation: Evaluation) -> None:
        # Called by all ranks, which may each hold a share of the model.
        sharded = self.accelerator.is_fsdp2
        state = self.accelerator.get_state_dict(self.model) if sharded else self._averaged_model().state_dict()
        failure: Exception | None = None
        if self.accelerator.is_main_process:
            write = partial(self.recipe.export, self._averaged_model(), state)
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
