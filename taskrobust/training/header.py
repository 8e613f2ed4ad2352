"""What a run says at its start and at its end."""

import shlex
from collections.abc import Sequence

import torch
from torch import nn

from taskrobust.training.device import Device
from taskrobust.training.trainer import Trainer


def print_start(command: str, trainer: Trainer, device: Device) -> None:
    """Say what a run will do, once for all ranks.

    Args:
        command: Name of the command.
        trainer: The run.
        device: What it computes on.
    """
    recipe, loop, processes = trainer.recipe, trainer.loop, trainer.accelerator.num_processes
    parameters = sum(parameter.numel() for parameter in trainer.bare_model.parameters())
    held_out = len(recipe.held_out.samples) if recipe.held_out.number is None else recipe.held_out.number
    samples = len(recipe.data)
    epochs = trainer.steps * trainer.samples_per_step / samples
    factors = f"{loop.batch_size} x {loop.accumulation} accumulated x {processes} processes"
    whole = loop.accumulation == 1 and processes == 1
    rows = {
        "device": ", ".join(_device(device, trainer.accelerator.device, processes)),
        "model": f"{type(trainer.bare_model).__name__}, {parameters / 1e6:.3g} M parameters",
        "data": f"{samples:,} training samples, {held_out:,} held out",
        "steps": f"{trainer.steps:,} of {trainer.samples_per_step} samples{'' if whole else f' ({factors})'}, "
        f"{epochs:.3g} epochs",
        **_weighting(trainer),
        "output": str(trainer.run.path),
    }
    for text in (f"{command}:", *(f"  {name:<9}  {value}" for name, value in rows.items())):
        trainer.tracker.say(text)


def print_end(trainer: Trainer, next_commands: Sequence[Sequence[str]] = ()) -> None:
    """Say where the models of a run are, and what can be done with them, once for all ranks.

    Args:
        trainer: The run, at its end.
        next_commands: The words of each command after ``taskrobust``.
    """
    progress, run = trainer.progress, trainer.run
    lines = [f"The model of step {progress.step} is in {run.model}."]
    if trainer.recipe.keep_best and run.best.exists():
        lines.append(f"The best model on held-out data, of step {progress.best_step}, is in {run.best}.")
    if next_commands:
        lines += ["Next:", *(f"  taskrobust {shlex.join(words)}" for words in next_commands)]
    for text in lines:
        trainer.tracker.say(text)


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
        "weighting": _settings(criterion.weighting),
        "risks": _settings(criterion.risk),
    }


def _settings(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"
