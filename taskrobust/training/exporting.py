"""Models and pictures that are whole or not there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from taskrobust._io.atomic import replacing
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
    try:
        with replacing(folder) as unfinished:
            with torch.random.fork_rng():  # whatever ``write`` draws, the run continues as without it
                write(unfinished)
            (unfinished / "evaluation.json").write_text(json.dumps({"step": step, **asdict(evaluation)}, indent=2))
    except Exception as error:  # on a full disk safetensors and torch raise errors of their own
        return error
    return None


def save_pictures(folder: Path, pictures: Mapping[str, NDArray[np.uint8]], step: int) -> None:
    """Write pictures of a step as PNG.

    Raises:
        OSError: If one could not be written.
    """
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        path = folder / f"step-{step:08d}-{name}.png"
        with replacing(path) as unfinished:
            Image.fromarray(picture).save(unfinished, "PNG")
