"""Callbacks of the trainer: your own, and those that show, log and draw how a run is doing."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from taskrobust._io.atomic import replacing

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.progress import TaskID
    from torch import nn

    from taskrobust.loss import MultiTaskLoss
    from taskrobust.training.evaluation import Evaluation
    from taskrobust.training.recipe import Recipe
    from taskrobust.training.run_folder import RunFolder


class Progress(Protocol):
    """The position in a run.

    Attributes:
        step: Number of optimizer steps so far.
        samples: Number of samples so far, over all ranks.
        best: The worst risk, or the negative score, of the best model so far.
        best_step: Step of that model.
    """

    step: int
    samples: int
    best: float
    best_step: int


class Training(Protocol):
    """What callbacks see of the trainer.

    Attributes:
        recipe: Model, data and criterion.
        folder: The run folder.
        accelerator: Device, precision and process group.
        criterion: The criterion; ``criterion.last`` has the values of the last step.
        bare_model: The model without wrappers.
        console: Where messages are printed.
        steps: Optimizer steps of the run.
        samples_per_step: Samples per step over all ranks.
        is_main: Whether this is the main rank.
        should_stop: Set it to end training after the current step, as if it were the last. All ranks must agree.
    """

    recipe: "Recipe"
    folder: "RunFolder"
    accelerator: "Accelerator"
    criterion: "MultiTaskLoss"
    bare_model: "nn.Module"
    console: "Console"
    steps: int
    samples_per_step: int
    is_main: bool
    should_stop: bool

    @property
    def progress(self) -> Progress:
        """The position in the run."""

    @property
    def evaluated_model(self) -> "nn.Module":
        """The model that is evaluated and exported: the average of the parameters if there is one."""

    def say(self, text: str) -> None:
        """Print a line above the progress bar, once for all ranks."""


class Callback:
    """Reacts to what happens in a run. Subclass it, and override the hooks that you need.

    All ranks call every hook in the same step. Anything a hook reads from the device costs a synchronization; values of
    the last step are in ``trainer.criterion.last``.

    Example:
        >>> class StopWhenGood(Callback):
        ...     def on_evaluation(self, trainer, evaluation, split, best):
        ...         trainer.should_stop = evaluation.worst < 0.1
    """

    def on_start(self, trainer: Training) -> None:
        """Called before the first step of this process, after a checkpoint was loaded."""

    def on_step(self, trainer: Training) -> None:
        """Called after each optimizer step; ``trainer.progress.step`` is its number, from 1."""

    def on_metrics(self, trainer: Training, line: Mapping[str, Any]) -> None:
        """Called on the main rank for each line of metrics.jsonl.

        Args:
            trainer: The trainer.
            line: The line. Its ``split`` is ``train`` for the mean over the last steps.
        """

    def on_evaluation(self, trainer: Training, evaluation: "Evaluation", split: str, best: bool) -> None:
        """Called after each evaluation.

        Args:
            trainer: The trainer.
            evaluation: The evaluation.
            split: ``held_out``, or the name of a report.
            best: Whether it is the best on held-out data so far, or a report of the best model.
        """

    def on_checkpoint(self, trainer: Training) -> None:
        """Called after a checkpoint was written."""

    def on_end(self, trainer: Training) -> None:
        """Called when training ends, also by an error or a signal."""


class ProgressBar(Callback):
    """Shows a progress bar in a terminal, and one line per ``log_every`` steps elsewhere."""

    def on_start(self, trainer: Training) -> None:
        """Start the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
            console=trainer.console,
            disable=not (trainer.is_main and trainer.console.is_terminal),
        )
        steps = trainer.progress.step
        self._task: TaskID = self._bar.add_task("training", total=trainer.steps, completed=steps, state="")
        self._bar.start()

    def on_step(self, trainer: Training) -> None:
        """Advance the bar."""
        self._bar.update(self._task, completed=trainer.progress.step)

    def on_metrics(self, trainer: Training, line: Mapping[str, Any]) -> None:
        """Show the loss, the worst task and the throughput."""
        if line["split"] != "train":
            return
        worst, risks = line["worst_task"], line["risks"]
        parts = [f"loss {line['loss']:.3f}"]
        if len(trainer.criterion.weighted_tasks) > 1:
            excess = f" ({line['excess'][worst]:.3f} in excess)" if worst is not None and "excess" in line else ""
            parts.append("no task present" if worst is None else f"worst {worst} {risks[worst]:.3f}{excess}")
        state = f"{', '.join(parts)}, {line['samples_per_second']:.0f} samples/s"
        self._bar.update(self._task, state=state)
        if not trainer.console.is_terminal:
            step = line["step"]
            samples_left = (trainer.steps - step) * trainer.samples_per_step
            left = timedelta(seconds=round(samples_left / line["samples_per_second"]))
            trainer.say(f"step {step} of {trainer.steps}: {state}, {left} left")

    def on_evaluation(self, trainer: Training, evaluation: "Evaluation", split: str, best: bool) -> None:
        """Print the scores, or the mean and the largest risk."""
        scores = {name: score for name, score in evaluation.scores.items() if "/" not in name}
        if scores:
            results = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
        else:
            reference = trainer.criterion.risk.reference
            excess = "excess risk, " if reference is not None and (reference.constant or reference.needs_model) else ""
            results = f"{excess}mean {evaluation.mean:.3f}, worst {evaluation.worst:.3f} ({evaluation.worst_task})"
        missing = [task for task in trainer.criterion.weighted_tasks if task not in evaluation.risks]
        trainer.say(
            f"step {trainer.progress.step}: {'held-out' if split == 'held_out' else split} {results}"
            + (f", without {missing}, which had no elements" if missing else "")
            + ((", the best so far" if split == "held_out" else ", of the best model") if best else "")
        )

    def on_end(self, trainer: Training) -> None:
        """Remove the bar."""
        if hasattr(self, "_bar"):
            self._bar.stop()


class Pictures(Callback):
    """Draws what the model predicts at each evaluation on held-out data, into the run's ``pictures/``."""

    def on_evaluation(self, trainer: Training, evaluation: "Evaluation", split: str, best: bool) -> None:
        """Draw the pictures of the recipe."""
        draw, accelerator = trainer.recipe.pictures, trainer.accelerator
        if draw is None or split != "held_out" or not trainer.is_main or accelerator.is_fsdp2:
            return
        model = trainer.evaluated_model
        training = model.training
        model.eval()
        with accelerator.autocast():
            pictures = draw(model)
        model.train(training)
        try:
            _save_pictures(trainer.folder.pictures, pictures, trainer.progress.step)
        except OSError as error:
            trainer.say(f"The pictures of step {trainer.progress.step} could not be written ({error}).")


class Trackers(Callback):
    """Sends the metrics to the experiment trackers of Accelerate.

    A tracker that fails is reported once and dropped: metrics.jsonl has everything, and training continues.

    Args:
        names: The trackers: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``.
        project: Name of the project or experiment in those that have one.
    """

    def __init__(self, names: Sequence[str], project: str = "taskrobust") -> None:
        self.names = names
        self.project = project
        self._trackers: list[GeneralTracker] = []

    def on_start(self, trainer: Training) -> None:
        """Start the trackers on the main rank.

        Raises:
            ValueError: If one is not installed.
        """
        if not trainer.is_main:
            return
        for name in self.names:
            tracker = self._make(name, trainer.folder.path, trainer.progress.step)
            self._trackers.append(tracker)
            self._attempt(trainer, tracker, tracker.start)

    def on_metrics(self, trainer: Training, line: Mapping[str, Any]) -> None:
        """Send a line."""
        values = curves(line)
        for tracker in list(self._trackers):
            self._attempt(trainer, tracker, lambda tracker=tracker: tracker.log(values, step=line["step"]))

    def on_checkpoint(self, trainer: Training) -> None:
        """Write what TensorBoard buffers, so that a run that is killed resumes without gaps in its curves."""
        for tracker in [tracker for tracker in self._trackers if tracker.name == "tensorboard"]:
            self._attempt(trainer, tracker, tracker.writer.flush)

    def on_end(self, trainer: Training) -> None:
        """Close the trackers."""
        for tracker in list(self._trackers):
            self._attempt(trainer, tracker, tracker.finish)

    def _make(self, name: str, folder: Path, step: int) -> "GeneralTracker":
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        if name not in map(str, get_available_trackers()):
            raise ValueError(f"Expected the tracker {name} to be installed: pip install {name}.")
        make, run_name = LOGGER_TYPE_TO_CLASS[name], folder.name
        if name == "tensorboard":
            return make("tensorboard", logging_dir=folder, purge_step=step + 1)
        if name == "wandb":
            os.environ.setdefault("WANDB_MODE", "offline")
            return make(self.project, dir=str(folder), name=run_name, id=_identifier(folder), resume="allow")
        if name == "mlflow":
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{(folder / 'mlflow.db').absolute()}")
            return make(self.project, logging_dir=str((folder / "mlflow").absolute()), run_name=run_name)
        os.environ.setdefault("TRACKIO_DIR", str((folder / "trackio").absolute()))
        return make(self.project, name=run_name, resume="allow")

    def _attempt(self, trainer: Training, tracker: "GeneralTracker", action: Any) -> None:
        try:
            action()
        except Exception as error:  # whatever a tracker raises, it does not end the run
            trainer.say(
                f"The tracker {tracker.name} failed ({type(error).__name__}: {error}). Training continues without it; "
                f"{trainer.folder.metrics} has all metrics."
            )
            self._trackers.remove(tracker)


def _identifier(folder: Path) -> str:
    """A name of the run for trackers that resume by name."""
    return str(folder.absolute()).strip("/").replace("/", "-").replace(" ", "-")[-64:]


def curves(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by the names of their curves."""
    if line["split"] != "train":
        split = line["split"]
        values = {f"{split}/{task}": risk for task, risk in line["risks"].items()} | {
            f"{split}/{name}": score for name, score in line["scores"].items()
        }
        if not line["scores"]:
            values |= {f"{split}/mean": line["mean"], f"{split}/worst": line["worst"]}
        return values
    plain = ("loss", "effective_tasks", "lr", "samples_per_second", "data_loading_share", "peak_memory_gib", "mfu")
    values = {f"train/{name}": line.get(name) for name in plain}
    for kind in ("risk", "weight"):
        values |= {f"{kind}/{task}": value for task, value in line[f"{kind}s"].items()}
    return {name: value for name, value in values.items() if value is not None and value == value}


def _save_pictures(folder: Path, pictures: Mapping[str, "NDArray[np.uint8]"], step: int) -> None:
    """Write pictures of a step as PNG.

    Raises:
        OSError: If one could not be written.
    """
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        path = folder / f"step-{step:08d}-{name}.png"
        with replacing(path) as unfinished:
            Image.fromarray(picture).save(unfinished, "PNG")
