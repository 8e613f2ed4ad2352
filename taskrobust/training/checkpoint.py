"""Checkpoints, exported models and pictures: each appears complete or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from taskrobust._io.atomic import checksum, replacing
from taskrobust.training.distributed import any_rank
from taskrobust.training.evaluation import Evaluation

_MANIFEST = "manifest.json"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read."""


class ExportError(RuntimeError):
    """A model could not be written."""


class Checkpoints:
    """The checkpoints of a run, in ``folder/step-00001000``.

    A checkpoint is written to a temporary folder with a manifest of its files' sizes and checksums, flushed to disk and
    renamed in one operation. If the process is killed at any point, earlier checkpoints remain intact.

    Args:
        folder: Folder of the checkpoints.
        accelerator: Saves and loads the state of the model, the optimizer, random numbers and registered objects.
        keep: Number of checkpoints to keep, so that there is one to fall back to.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int = 2) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints, the newest first."""
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*"))
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def save(self, step: int) -> None:
        """Write a checkpoint. Called by all ranks.

        Raises:
            CheckpointError: If it could not be written. Earlier checkpoints are intact.
        """
        unfinished = self.folder / f".unfinished-{step:08d}"
        failure: Exception | None = None
        main = self.accelerator.is_main_process
        if main:
            for left_over in self.folder.glob(".unfinished-*"):
                shutil.rmtree(left_over, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            self.accelerator.save_state(str(unfinished), safe_serialization=False)  # tied weights are one tensor
        except Exception as error:  # on a full disk torch raises RuntimeError, not OSError
            failure = error
        if not any_rank(self.accelerator, failure is not None) and main:
            try:
                self._finish(unfinished, step)
            except OSError as error:
                failure = error
        if any_rank(self.accelerator, failure is not None):
            if main:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise CheckpointError(self._failure(step, failure)) from failure

    def load_newest(self) -> int | None:
        """Load the newest intact checkpoint. Called by all ranks.

        Returns:
            Its step, or None if there are no checkpoints.

        Raises:
            CheckpointError: If there are checkpoints and none is intact.
        """
        # One rank decides for all, which may not see the same folder.
        found = [self._newest_intact()] if self.accelerator.is_main_process else [None]
        step: int | None
        step, damages = broadcast_object_list(found)[0]
        if step is None and damages:
            raise CheckpointError(" ".join(damages) + " None is intact: start again in an empty folder.")
        if step is not None:
            for line in damages:
                self.accelerator.print(f"{line} Resuming from step {step}.")
            self.accelerator.load_state(str(self._path(step)))
            self.accelerator.wait_for_everyone()
        return step

    def _newest_intact(self) -> tuple[int | None, list[str]]:
        """Step of the newest intact checkpoint, and the damage of those after it."""
        damages: list[str] = []
        for step in self.steps():
            damage = _damage(self._path(step))
            if damage is None:
                return step, damages
            damages.append(f"The checkpoint {self._path(step)} is damaged: {damage}.")
        return None, damages

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _finish(self, unfinished: Path, step: int) -> None:
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        manifest = {str(path.relative_to(unfinished)): [path.stat().st_size, checksum(path)] for path in files}
        (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (*files, unfinished / _MANIFEST, unfinished):
            _flush(path)
        shutil.rmtree(self._path(step), ignore_errors=True)  # a damaged one of the same step
        unfinished.rename(self._path(step))
        _flush(self.folder)
        kept = [s for s in self.steps() if s <= step][: self.keep]  # damaged ones of later steps go, too
        for other in set(self.steps()).difference(kept):
            shutil.rmtree(self._path(other))

    def _failure(self, step: int, failure: Exception | None) -> str:
        reason = failure if failure is not None else "another rank failed"
        older = [s for s in self.steps() if s != step]
        last = f"the checkpoint of step {older[0]} is intact" if older else "there is no earlier one"
        return f"The checkpoint of step {step} could not be written to {self.folder} ({reason}); {last}."


def export_model(folder: Path, write: Callable[[Path], None], step: int, evaluation: Evaluation) -> Exception | None:
    """Write a model with its evaluation, atomically.

    Args:
        folder: Where to write it. An earlier model is replaced.
        write: Writes the model to a folder.
        step: Step of the run.
        evaluation: Its risks.

    Returns:
        The error if it could not be written; the earlier model is then intact.
    """
    try:
        with replacing(folder) as unfinished:
            with torch.random.fork_rng():  # whatever ``write`` draws, the run continues as without it
                write(unfinished)
            (unfinished / "evaluation.json").write_text(json.dumps({"step": step, **asdict(evaluation)}, indent=2))
    except Exception as error:  # on a full disk safetensors and torch raise errors of their own
        return error
    return None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damage(folder: Path) -> str | None:
    """The damage of a checkpoint, None if it is intact."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"its manifest cannot be read ({error})"
    for name, (size, crc) in manifest.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
        if checksum(path) != crc:
            return f"{name} has other content than was written"
    return None
