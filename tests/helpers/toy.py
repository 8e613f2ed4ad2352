"""A small recipe for the engine's tests: three heads on a shared trunk, uneven counts, dropout.

python -m tests.helpers.toy OUTPUT [key=value ...]
"""

import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from taskrobust import MultiTaskLoss, Outputs, RiskEstimator, TaskLosses
from taskrobust._io.settings import changeable, defaults, recorded
from taskrobust.training.callbacks import Callback
from taskrobust.training.config import DeviceConfig, LoopConfig, OptimConfig, RunConfig
from taskrobust.training.device import resolve_device
from taskrobust.training.distributed import make_accelerator
from taskrobust.training.metrics import CLOCKED
from taskrobust.training.recipe import HeldOut, Recipe
from taskrobust.training.run_folder import RunFolder
from taskrobust.training.trainer import Trainer
from taskrobust.weighting import DWA, Weighting, make_weighting

TASKS = ("easy", "hard", "rare")
SAMPLES = 50
STEPS = 20
WATCHING = ("signal", "die_in_checkpoint", "pause", "full")
"""What happens to a run, which is not part of what it computes.

``signal=SIGTERM:7`` gets a signal after step 7, ``signal=SIGTERM:7:1`` on rank 1 only. ``full=10000:7`` can write no
larger file from step 7 on, ``full=10000:7:until:9`` up to step 8, ``full=10000:7:1`` on rank 1 only.
``die_in_checkpoint=files:10``: see there. ``pause=0.1`` waits before each step.
"""

Row = tuple[Tensor, int, bool]


class ToyData(Dataset):
    """Rows of a fixed table with noise that depends on (index, epoch) alone.

    Args:
        spoiled: A key whose target is NaN.
        broken: A key that cannot be read.
    """

    def __init__(self, spoiled: tuple[int, ...] = (), broken: tuple[int, ...] = ()) -> None:
        self.table = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1))
        self.spoiled = spoiled
        self.broken = broken

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Row]:
        rows = []
        for index, epoch in keys:
            if (index, epoch) == self.broken:
                raise RuntimeError(f"Sample {index} cannot be read.")
            generator = torch.Generator().manual_seed(1000 * epoch + index)
            row = self.table[index] + 0.1 * torch.randn(6, generator=generator)
            rows.append((row, index, (index, epoch) == self.spoiled))
        return rows


def collate(rows: list[Row]) -> dict[str, Tensor]:
    inputs = torch.stack([row for row, _, _ in rows])
    index = torch.tensor([index for _, index, _ in rows])
    hard = (inputs[:, 1] * inputs[:, 2]) * 3
    hard[torch.tensor([spoiled for _, _, spoiled in rows])] = torch.nan
    return {
        "inputs": inputs,
        "targets": torch.stack([inputs[:, 0], hard, inputs[:, 3].abs() + 2], 1),
        "present": torch.stack([torch.ones_like(index), index % 2, index % 10 == 0]).bool().T,
    }


class ToyModel(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout))
        self.heads = nn.Linear(16, 3)

    def forward(self, inputs: Tensor, targets: Tensor, present: Tensor) -> Outputs:
        activation = self.trunk(inputs)
        outputs = self.heads(activation).float()
        losses = (outputs - targets) ** 2
        sums = TaskLosses(torch.where(present, losses, 0).sum(0), present.float().sum(0))
        return Outputs(sums, shared=activation, predictions=outputs.detach())


class ToyScores:
    """Minus the mean absolute error of the first task."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> None:
        errors = (outputs.predictions - batch["targets"])[:, 0].abs()
        self.sums += torch.stack([errors.sum(), torch.tensor(len(errors))])

    def compute(self) -> dict[str, float]:
        if dist.is_initialized():
            dist.all_reduce(self.sums)
        return {"closeness": -float(self.sums[0] / self.sums[1])}


class Watch(Callback):
    """Notes the parameters of each step, and does to the run what a test wants to happen."""

    def __init__(self, **watching: str) -> None:
        self.watching = watching

    def on_start(self, trainer: Trainer) -> None:
        if "die_in_checkpoint" in self.watching:
            place, step = self.watching["die_in_checkpoint"].split(":")
            die_in_checkpoint(trainer, place, int(step))
        self._before(trainer, trainer.progress.step + 1)

    def on_step(self, trainer: Trainer) -> None:
        step, rank = trainer.progress.step, str(trainer.accelerator.process_index)
        if trainer.is_main:
            note = {"step": step, "digest": digest(trainer.bare_model.state_dict())}
            with (trainer.folder.path / "parameters.jsonl").open("a") as file:
                file.write(json.dumps(note) + "\n")
        name, when, *ranks = self.watching.get("signal", "SIGTERM:never").split(":")
        if when == str(step) and ranks in ([], [rank]):
            os.kill(os.getpid(), signal.Signals[name])
        self._before(trainer, step + 1)

    def _before(self, trainer: Trainer, step: int) -> None:
        time.sleep(float(self.watching.get("pause", 0)))
        size, when, *more = self.watching.get("full", "0:never").split(":")
        mine = more in ([], [str(trainer.accelerator.process_index)]) or more[0] == "until"
        if when == str(step) and mine:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
        if more == ["until", str(step)]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def die_in_checkpoint(trainer: Trainer, place: str, step: int) -> None:
    """Die among the ``files`` of a checkpoint, before its ``manifest`` or ``rename``, or in the ``best`` export."""
    owner, name = {
        "files": (trainer.metrics, "state_dict"),
        "manifest": (trainer.checkpoints, "_finish"),
        "rename": (Path, "rename"),
        "best": (Path, "replace"),
    }[place]
    method = getattr(owner, name)

    def dies(*arguments: Any) -> Any:
        if trainer.progress.step == step and (place != "best" or arguments[0].name == ".best.unfinished"):
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments)

    setattr(owner, name, dies)


def lines(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The metrics of a run, without those that depend on the machine."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in read:
        for name in CLOCKED:
            line.pop(name, None)
    return [line for line in read if split in (None, line["split"])]


def digests(folder: Path) -> dict[int, str]:
    """A digest of the model's parameters after each step, as the last process that made the step left them."""
    notes = map(json.loads, (folder / "parameters.jsonl").read_text().splitlines())
    return {note["step"]: note["digest"] for note in notes}


def exported(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "model" / "model.pt")


def assert_same_run(folder: Path, reference: Path) -> None:
    """The same, bit by bit."""
    assert lines(folder) == lines(reference)
    assert digests(folder) == digests(reference)
    assert digest(exported(folder)) == digest(exported(reference))


def assert_same_curve(folder: Path, reference: Path) -> None:
    """The same numbers in each line but for rounding, and the same words."""
    for line, expected in zip(lines(folder), lines(reference), strict=True):
        assert dict(_words(line)) == dict(_words(expected))
        assert dict(_numbers(line)) == pytest.approx(dict(_numbers(expected)), rel=1e-5, abs=1e-6)


def _numbers(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{task}", number) for task, number in _numbers(value))
        elif isinstance(value, float):
            yield key, value


def _words(line: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in line.items() if not isinstance(value, (dict, float)))


def digest(state: dict[str, Tensor]) -> str:
    """Of this rank's share, where the model is sharded."""
    local = [value.to_local() if isinstance(value, DTensor) else value for value in state.values()]
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in local)).hexdigest()


def toy_weighting(name: str) -> Weighting:
    return DWA(period=None) if name == "dwa_by_epoch" else make_weighting(name)


def make_trainer(output: Path, settings: dict[str, str]) -> Trainer:
    watching = {name: settings.pop(name) for name in WATCHING if name in settings}
    loop = LoopConfig(steps=STEPS, batch_size=4, log_every=2, eval_every=10, checkpoint_every=5)
    optim = OptimConfig(lr=1e-2, warmup_steps=2)
    device = DeviceConfig(device="cpu", precision="fp32")
    for config in (loop, optim, device):
        for field in fields(config):
            if field.name in settings:
                kind = float if field.name == "epochs" else type(getattr(config, field.name))
                setattr(config, field.name, kind(settings.pop(field.name)))
    if loop.epochs is not None and "both" not in settings:
        loop.steps = None
    compute = resolve_device(device, output)
    accelerator = make_accelerator(compute)
    broken = _key(settings, "broken")  # which a run that resumes may find mended
    settings.pop("broken", None)
    resume_from = settings.pop("resume_from", None)
    config = RunConfig(
        loop=loop,
        optim=optim,
        device=device,
        callbacks=[Watch(**watching)],
        resume_from=None if resume_from is None else int(resume_from),
    )
    if settings.pop("trackers", "") == "none":
        config.trackers = []
    described = compute.recorded_in(recorded({"run": config, "toy": settings}) | {"callbacks": []})
    folder = RunFolder(
        output,
        "toy",
        described,
        changeable(RunConfig, described),
        main=accelerator.is_main_process,
        defaults=defaults(RunConfig, described),
    )
    torch.manual_seed(loop.seed)
    data = ToyData(_key(settings, "spoiled"), broken)
    criterion = MultiTaskLoss(
        TASKS,
        toy_weighting(settings.get("weighting", "softmax_minimax")),
        risk=RiskEstimator(smoothing=float(settings.get("smoothing", 0))),
        on_nonfinite=settings.get("on_nonfinite", "raise"),
    )

    def export(model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        folder.mkdir(parents=True)
        torch.save(state, folder / "model.pt")

    def load(model: nn.Module, folder: Path) -> None:
        model.load_state_dict(torch.load(folder / "model.pt"))

    scored = "report_from" in settings
    recipe = Recipe(
        model=ToyModel(float(settings.get("dropout", 0))),
        criterion=criterion,
        data=data,
        collate=collate,
        held_out=HeldOut(samples=data, collate=collate, number=32, scores=ToyScores if scored else None),
        selection="closeness" if scored else None,
        reports={"test": HeldOut(samples=data, collate=collate, scores=ToyScores)} if scored else {},
        report_from=settings.get("report_from", "best"),
        load=load,
        lengths=np.arange(SAMPLES) % 7 if "lengths" in settings else None,
        export=export,
        task_counts=lambda batch: batch["present"].float().sum(0),
        layers=(nn.Sequential,),
    )
    return Trainer(recipe, folder, config, accelerator)


def _key(settings: dict[str, str], name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in settings[name].split(",")) if name in settings else ()


def main(output: str, *pairs: str) -> None:
    evaluation = make_trainer(Path(output), dict(pair.split("=", 1) for pair in pairs)).train()
    print(json.dumps(evaluation.__dict__))


if __name__ == "__main__":
    main(*sys.argv[1:])
