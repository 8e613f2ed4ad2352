"""Everything that the trainer has to know about a model and its data."""

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
    """Held-out samples.

    Args:
        samples: The samples, read with epoch 0.
        collate: Makes a batch of samples.
        number: Number of samples to evaluate, from the first. None evaluates all.
        scores: Makes the scores of an evaluation on a device.
    """

    samples: Samples
    collate: Callable[[Any], Batch]
    number: int | None = None
    scores: Callable[[torch.device], Scores] | None = None


@dataclass(kw_only=True)
class Recipe:
    """A model, its data, its criterion, and how to evaluate and export it.

    Args:
        model: Returns ``TaskLosses`` or ``Outputs`` for a batch, given as keyword arguments.
        criterion: The tasks and their weighting.
        data: The training samples.
        collate: Makes a batch of training samples.
        held_out: The samples of every evaluation.
        export: Writes a model with the given state dict to a folder.
        task_counts: Element counts of a batch, shape [T], for accumulation.
        layers: Classes of the layers that ``fsdp2`` shards separately.
        reference: The frozen model of ``ModelReference``, called like the model.
        selection: The score on ``held_out`` that selects best/, larger is better. None selects by the worst task's
            risk, smaller is better.
        keep_best: Whether to write the best model to best/ in addition to the last one.
        reports: Samples to evaluate once at the end, by name, such as test.
        report_from: The model that ``reports`` evaluate: the ``best`` or the ``last``.
        load: Loads the parameters of an exported model, for reports of the best.
        lengths: Length of each training sample. If given, samples of similar lengths are batched together.
        depth_of: Depth of a parameter by its name, for ``layer_decay``; the inputs have depth 0.
        pictures: Draws predictions on held-out samples: RGB bytes [H, W, 3] by name. Not called for a sharded model.
    """

    model: nn.Module
    criterion: MultiTaskLoss
    data: Samples
    collate: Callable[[Any], Batch]
    held_out: HeldOut
    export: Callable[[nn.Module, dict[str, Tensor], Path], None]
    task_counts: Callable[[Batch], Tensor]
    layers: tuple[type[nn.Module], ...]
    reference: nn.Module | None = None
    selection: str | None = None
    keep_best: bool = True
    reports: Mapping[str, HeldOut] = field(default_factory=dict)
    report_from: Literal["best", "last"] = "best"
    load: Callable[[nn.Module, Path], None] | None = None
    lengths: NDArray[np.int64] | None = None
    depth_of: Callable[[str], int] | None = None
    pictures: Callable[[nn.Module], Mapping[str, NDArray[np.uint8]]] | None = None
