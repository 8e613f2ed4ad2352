"""What is trained: all that the engine has to know of text or images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from taskrobust.loss import MultiTaskLoss
from taskrobust.training.data import Samples
from taskrobust.training.evaluation import Scores

Batch = Mapping[str, Tensor]


@dataclass(kw_only=True)
class HeldOut:
    """Samples that are not trained on.

    Args:
        samples: The samples. Their keys have epoch 0.
        collate: Makes a batch of what ``samples`` returns.
        number: How many of them are evaluated, from the first. None takes all.
        scores: Makes, for a device, what takes in the predictions of an evaluation.
    """

    samples: Samples
    collate: Callable[[Any], Batch]
    number: int | None = None
    scores: Callable[[torch.device], Scores] | None = None


@dataclass(kw_only=True)
class Recipe:
    """What is trained.

    Args:
        model: Returns ``TaskLosses`` or ``Outputs`` for a batch, given as keyword arguments.
        criterion: The tasks and their weighting.
        data: The training samples.
        collate: Makes a batch of what ``data`` returns.
        held_out: The samples that every evaluation is on.
        export: Writes a model, with the given state dict, to a folder.
        task_counts: Element counts of a batch, for accumulation.
        layers: Classes of the layers of which ``fsdp2`` gathers one at a time.
        selection: The score on ``held_out`` by which best/ is chosen, larger is better. None takes the worst task's
            risk, smaller is better.
        keep_best: Whether the best model is written, to best/, beside the last.
        reports: Samples of which the evaluation is only reported, once at the end, by name, such as test.
        report_from: The model that ``reports`` are of: the ``best`` or the ``last``.
        load: Takes over the parameters of an exported model, for reports from the best.
        lengths: Length of each training sample. Batches are then made of samples of like length.
        depth_of: Depth of a parameter, by its name, for the decay of the learning rate over layers; 0 are the inputs.
        pictures: What a model does on some held-out samples, drawn at each evaluation: RGB bytes [H, W, 3] by name.
            Not drawn for a model of which each rank holds a share.
    """

    model: nn.Module
    criterion: MultiTaskLoss
    data: Samples
    collate: Callable[[Any], Batch]
    held_out: HeldOut
    export: Callable[[nn.Module, dict[str, Tensor], Path], None]
    task_counts: Callable[[Batch], Tensor]
    layers: tuple[type[nn.Module], ...]
    selection: str | None = None
    keep_best: bool = True
    reports: Mapping[str, HeldOut] = field(default_factory=dict)
    report_from: Literal["best", "last"] = "best"
    load: Callable[[nn.Module, Path], None] | None = None
    lengths: NDArray[np.int64] | None = None
    depth_of: Callable[[str], int] | None = None
    pictures: Callable[[nn.Module], Mapping[str, NDArray[np.uint8]]] | None = None
