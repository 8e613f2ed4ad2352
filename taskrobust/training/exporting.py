"""Models and pictures that are whole or not there."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from taskrobust.training.evaluation import Evaluation


class ExportError(RuntimeError):
    """A model could not be written."""


def export_model(folder: Path, write: Callable[[Path], None], step: int, evaluation: Evaluation) -> Exception | None:
    """Write a model beside its place and move it there, with what came of its evaluation.

    Args:
        folder: Its place. What is there is replaced.
        write: Writes the model to a folder.
        step: Step of the run.
        evaluation: Its risks.

    Returns:
        What went wrong, if anything: then what was there before is whole.
    """
    unfinished, old = folder.with_name(f".{folder.name}"), folder.with_name(f".{folder.name}-before")
    for left_over in (unfinished, old):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        with torch.random.fork_rng():  # whatever ``write`` draws, the run goes on as without it
            write(unfinished)
        (unfinished / "evaluation.json").write_text(json.dumps({"step": step, **asdict(evaluation)}, indent=2))
        if folder.exists():
            folder.rename(old)
        unfinished.rename(folder)
    except Exception as error:  # on a full disk safetensors and torch raise errors of their own
        shutil.rmtree(unfinished, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        return error
    shutil.rmtree(old, ignore_errors=True)
    return None


def save_pictures(folder: Path, pictures: Mapping[str, NDArray[np.uint8]], step: int) -> None:
    """Write pictures of a step as PNG.

    Raises:
        OSError: If one could not be written.
    """
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        path = folder / f"step-{step:08d}-{name}.png"
        unfinished = path.with_name(f".{path.name}")
        Image.fromarray(picture).save(unfinished, "PNG")
        unfinished.replace(path)
