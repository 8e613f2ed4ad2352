"""The common part of all training commands: join the processes, open the run folder, train, print a summary."""

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import nn

from taskrobust._io.settings import changeable, defaults
from taskrobust.training.config import RunConfig
from taskrobust.training.device import Device, resolve_device
from taskrobust.training.distributed import make_accelerator
from taskrobust.training.evaluation import Evaluation
from taskrobust.training.recipe import Recipe
from taskrobust.training.run_folder import RunFolder
from taskrobust.training.trainer import Trainer


@dataclass
class Run:
    """One run of a training command.

    Args:
        command: Name of the command.
        config: The settings of the run, with the resolved device.
        device: The resolved device.
        accelerator: Device, precision and process group.
        folder: The run folder.
    """

    command: str
    config: RunConfig
    device: Device
    accelerator: Accelerator
    folder: RunFolder

    @classmethod
    def start(
        cls,
        command: Callable[..., Any],
        output: Path,
        config: RunConfig,
        settings: Mapping[str, Any],
        device: Device | None = None,
    ) -> Self:
        """Join the process group and open the run folder.

        Args:
            command: The command's function. Its annotations say which settings may change in a resumed run.
            output: The run folder.
            config: The settings of the run.
            settings: All settings of the command in plain values.
            device: The resolved device. Defaults to resolving ``config.device``.

        Raises:
            ValueError: If device and configuration do not fit together, the folder holds another run, or another
                process is training in it.
        """
        device = device or resolve_device(config.device, output)
        accelerator = make_accelerator(device)
        name = command.__name__.replace("_", "-")
        recorded = device.recorded_in(settings)
        with accelerator.main_process_first():
            folder = RunFolder(
                output,
                name,
                recorded,
                changeable(command, recorded),
                config.resume,
                accelerator.is_main_process,
                defaults(command, recorded),
            )
        torch.manual_seed(config.loop.seed)
        return cls(name, replace(config, device=device.config), device, accelerator, folder)

    def trainer(self, recipe: Recipe) -> Trainer:
        """Make the trainer of a recipe, and print the settings of the run."""
        trainer = Trainer(recipe, self.folder, self.config, self.accelerator)
        for line in (f"{self.command}:", *_rows(trainer, self.device)):
            trainer.say(line)
        return trainer

    def train(self, recipe: Recipe, next_commands: Sequence[Sequence[str]] = ()) -> Evaluation:
        """Train a recipe, print where its models are, and leave the process group.

        Args:
            recipe: Model, data and criterion.
            next_commands: The words of each command to suggest, after ``taskrobust``.
        """
        trainer = self.trainer(recipe)
        evaluation = trainer.train()
        self.end(trainer, next_commands)
        return evaluation

    def end(self, trainer: Trainer, next_commands: Sequence[Sequence[str]] = ()) -> None:
        """Print where the models are and which commands can follow, and leave the process group."""
        progress, folder = trainer.progress, self.folder
        trainer.say(f"The model of step {progress.step} is in {folder.model}.")
        if trainer.recipe.keep_best and folder.best.exists():
            trainer.say(f"The best model on held-out data, of step {progress.best_step}, is in {folder.best}.")
        if next_commands:
            for line in ("Next:", *(f"  taskrobust {shlex.join(words)}" for words in next_commands)):
                trainer.say(line)
        self.accelerator.end_training()


def _rows(trainer: Trainer, device: Device) -> list[str]:
    recipe, loop, processes = trainer.recipe, trainer.config.loop, trainer.accelerator.num_processes
    parameters = sum(parameter.numel() for parameter in trainer.bare_model.parameters())
    held_out = len(recipe.held_out.samples) if recipe.held_out.number is None else recipe.held_out.number
    samples = len(recipe.data)
    epochs = trainer.steps * trainer.samples_per_step / samples
    factors = f" ({loop.batch_size} x {loop.accumulation} accumulated x {processes} processes)"
    is_product = loop.accumulation > 1 or processes > 1
    rows = {
        "device": ", ".join(_device(device, trainer.accelerator.device, processes)),
        "model": f"{type(trainer.bare_model).__name__}, {parameters / 1e6:.3g} M parameters",
        "data": f"{samples:,} training samples, {held_out:,} held out",
        "steps": f"{trainer.steps:,} of {trainer.samples_per_step} samples{factors if is_product else ''}, "
        f"{epochs:.3g} epochs",
        **_weighting(trainer),
        "output": str(trainer.folder.path),
    }
    return [f"  {name:<9}  {value}" for name, value in rows.items()]


def _device(device: Device, where: torch.device, processes: int) -> list[str]:
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type.upper()
    parts = [name, f"{device.precision} ({device.precision_reason})"]
    threads = device.config.threads
    if threads is not None:
        plural = "s" if threads > 1 else ""
        parts.append(f"{threads} thread{plural}" + (f" ({device.threads_reason})" if device.threads_reason else ""))
    if processes > 1:
        parts.append(f"{processes} processes, {device.config.parallel}")
    return parts


def _weighting(trainer: Trainer) -> dict[str, str]:
    criterion = trainer.criterion
    tasks = criterion.weighted_tasks
    if len(tasks) == 1:
        return {}
    return {
        "tasks": ", ".join(tasks),
        "weighting": _with_settings(criterion.weighting),
        "risks": _with_settings(criterion.risk),
    }


def _with_settings(module: nn.Module) -> str:
    given = inspect.signature(type(module)).parameters
    parts = [module.extra_repr(), *(f"{n}={_with_settings(m)}" for n, m in module.named_children() if n in given)]
    return f"{type(module).__name__}({', '.join(filter(None, parts))})"
