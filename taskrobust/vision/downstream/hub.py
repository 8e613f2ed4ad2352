"""Downstream models in folders: config.json and model.safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file
from torch import Tensor

from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.model import DownstreamModel
from taskrobust.vision.modalities.registry import class_at, from_plain, plain, to_plain

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.safetensors"


def save_downstream(model: DownstreamModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model to a folder.

    Args:
        model: Says what the parameters are for.
        state: Its parameters, as ``state_dict`` has them.
        folder: A new folder.
    """
    config = {
        "task": plain(model.task),
        "inputs": to_plain(model.inputs),
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "width": model.encoder.positions.shape[1],
        "depth": len(model.encoder.blocks),
        "heads": model.encoder.heads,
    }
    folder.mkdir(parents=True)
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / _WEIGHTS)


def load_downstream(place: Path) -> DownstreamModel:
    """The model of a fine-tuning's run folder, or of a model's own folder.

    Raises:
        ValueError: If there is none, or a class in it is none of ours.
    """
    folder = place / "model" if (place / "model").is_dir() else place
    if not (folder / _CONFIG).exists():
        raise ValueError(f"Expected the run folder of a finished fine-tuning, or a model's folder, got {place}.")
    config: dict[str, Any] = json.loads((folder / _CONFIG).read_text())
    if "task" not in config:
        raise ValueError(f"Expected a fine-tuned model, {place} holds another one.")
    task, inputs = config.pop("task"), config.pop("inputs")
    model = DownstreamModel(
        class_at(task["class_path"], DownstreamTask, "task")(**task["init_args"]), from_plain(inputs), **config
    )
    load_parameters(model, folder)
    return model


def load_parameters(model: DownstreamModel, folder: Path) -> None:
    """Load the parameters that ``save_downstream`` wrote."""
    model.load_state_dict(load_file(folder / _WEIGHTS))
