"""Checkpoints, exported models and pictures: each appears complete or not at all."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from taskrobust._io.atomic import checksum, replacing
from taskrobust.training.distributed import any_rank
from taskrobust.training.evaluation import Evaluation

_MANIFEST = "manifest.json"
_PARTS = "state.pt"
_CHOSEN = "resumed-from"
_FORMAT = 3


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read."""


class ExportError(RuntimeError):
    """A model could not be written."""


class Stateful(Protocol):
    """An object whose state is part of a checkpoint: tensors and plain values."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore the state."""


class Checkpoints:
    """The checkpoints of a run, in ``folder/step-00001000``.

    A checkpoint is written to a temporary folder with a manifest of its files' sizes and checksums, flushed to disk and
    renamed in one operation. If the process is killed at any point, earlier checkpoints remain intact. Loading one
    executes no code: everything is read with ``weights_only``.

    Args:
        folder: Folder of the checkpoints.
        accelerator: Saves and loads the state of the model and the optimizer.
        parts: Other objects by name, whose state is the same on all ranks.
        run: Identifier of the run, so that the checkpoints of another run are not resumed.
        keep: Number of checkpoints to keep, so that there is one to fall back to.
    """

    def __init__(
        self, folder: Path, accelerator: Accelerator, parts: Mapping[str, Stateful], run: str, keep: int = 2
    ) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.parts = parts
        self.run = run
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints, the newest first."""
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*") if path.is_dir())
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
            torch.save(_random_state(self.accelerator.device), unfinished / self._random_file)
            if main:
                torch.save({name: part.state_dict() for name, part in self.parts.items()}, unfinished / _PARTS)
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

    def load(self, step: int | None = None) -> int | None:
        """Load a checkpoint. Called by all ranks.

        Args:
            step: Its step. Later checkpoints are deleted. None loads the newest intact one, as does a step that was
                chosen before, so that a command which resumes by itself does not go back again and again.

        Returns:
            Its step, or None if there are no checkpoints.

        Raises:
            CheckpointError: If there are checkpoints and none is intact, or not the one of ``step``.
        """
        # One rank decides for all, which may not see the same folder.
        found: list[Any] = [None]
        if self.accelerator.is_main_process:
            chosen = None if step is None or self._chosen_before() == step else step
            found = [(chosen, *self._newest_intact(chosen))]
        there = self.steps()
        chosen, step, ranks, damages = broadcast_object_list(found)[0]
        if chosen is not None and step is None:
            reason = f" {damages[0]}" if damages else ""
            raise CheckpointError(
                f"Expected a checkpoint of step {chosen} in {self.folder}, got those of {sorted(there) or 'no step'}."
                + reason
            )
        if step is None and damages:
            raise CheckpointError(" ".join(damages) + " None is intact: start again in an empty folder.")
        if step is not None:
            for line in damages:
                self.accelerator.print(f"{line} Resuming from step {step}.")
            self._load(self._path(step), same_ranks=ranks == self.accelerator.num_processes)
            self.accelerator.wait_for_everyone()
            if chosen is not None and self.accelerator.is_main_process:
                for later in (other for other in self.steps() if other > chosen):
                    shutil.rmtree(self._path(later), ignore_errors=True)
                (self.folder / _CHOSEN).write_text(str(chosen))
                self.accelerator.print(f"Later checkpoints and metrics than those of step {chosen} are deleted.")
        return step

    def _chosen_before(self) -> int | None:
        """The step that was chosen last, which is not chosen twice."""
        file = self.folder / _CHOSEN
        text = file.read_text() if file.exists() else ""
        return int(text) if text.isdigit() else None

    def _load(self, path: Path, same_ranks: bool) -> None:
        try:
            self.accelerator.load_state(str(path))
            states = torch.load(path / _PARTS, map_location="cpu", weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(states[name])
            if same_ranks:  # otherwise the ranks keep the random numbers of their seeds
                _restore_random_state(torch.load(path / self._random_file, weights_only=True), self.accelerator.device)
        except Exception as error:  # torch and accelerate raise errors of many kinds
            raise CheckpointError(
                f"The checkpoint {path} is not one of this model ({type(error).__name__}: {error}). Delete it to "
                "resume from the one before."
            ) from error

    @property
    def _random_file(self) -> str:
        return f"random-{self.accelerator.process_index}.pt"

    def _newest_intact(self, chosen: int | None) -> tuple[int | None, int, list[str]]:
        """Step and number of ranks of the newest intact checkpoint, or the chosen one, and the damage of those read."""
        damages: list[str] = []
        for step in self.steps():
            if chosen is not None and step != chosen:
                continue
            try:
                return step, _verified(self._path(step), self.run), damages
            except (OSError, ValueError) as error:
                damages.append(f"The checkpoint {self._path(step)} is damaged: {error}.")
        return None, 0, damages

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _finish(self, unfinished: Path, step: int) -> None:
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        manifest = {
            "format": _FORMAT,
            "run": self.run,
            "ranks": self.accelerator.num_processes,
            "files": {str(path.relative_to(unfinished)): [path.stat().st_size, checksum(path)] for path in files},
        }
        (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (*files, unfinished / _MANIFEST, unfinished):
            _flush(path)
        shutil.rmtree(self._path(step), ignore_errors=True)  # a damaged one of the same step
        unfinished.rename(self._path(step))
        _flush(self.folder)
        kept = [s for s in self.steps() if s <= step][: self.keep]  # damaged ones of later steps go, too
        for other in set(self.steps()).difference(kept):
            shutil.rmtree(self._path(other), ignore_errors=True)  # one that cannot be deleted costs no newer one

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


def _verified(folder: Path, run: str) -> int:
    """The number of ranks that wrote a checkpoint.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, or of another run or format.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        files = {str(name): (int(size), int(crc)) for name, (size, crc) in manifest["files"].items()}
        written_by, ranks = (manifest["format"], str(manifest["run"])), int(manifest["ranks"])
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"its manifest cannot be read ({error})") from error
    if written_by != (_FORMAT, run):
        raise ValueError(f"it has format {written_by[0]} and belongs to run {written_by[1]}, not to {run}")
    for name, (size, crc) in files.items():
        path = folder / name
        if not path.exists():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != size:
            raise ValueError(f"{name} has {path.stat().st_size} of {size} bytes")
        if checksum(path) != crc:
            raise ValueError(f"{name} has other content than was written")
    return ranks


def _random_state(device: torch.device) -> dict[str, Any]:
    """The states of all random number generators of this process."""
    name, keys, *position = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(name), keys.tolist(), *position],
        "python": random.getstate(),
    }


def _restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    name, keys, *position = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *position))
    random.setstate(state["python"])
