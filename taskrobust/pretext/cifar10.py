"""The experiment of the slides on CIFAR-10: does a processor learnt from downstream images help a pretext task?"""

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet
from rich.progress import track
from torch import nn

from taskrobust.paths import filled_in
from taskrobust.pretext.networks import CONVOLUTIONAL_FEATURES, convolutional_network, mlp_network
from taskrobust.pretext.pipeline import PretextNetwork, PretextPipeline, Probe
from taskrobust.pretext.processor import Pairs, Processor
from taskrobust.pretext.tasks import Colourisation, PretextTask, Rotation, SplitHalf

TaskName = Literal["rotation", "colourisation", "split_half"]

SLIDES = {
    "full": {"ssl": 79.31, "1000": 9.95, "2000": 9.97, "3000": 9.99, "4000": 10.01, "5000": 9.96},
    "half": {"ssl": 75.25, "1000": 10.00, "2000": 10.01, "3000": 9.99, "4000": 9.99, "5000": 10.01},
}
"""Accuracies in percent of the table of the slides, with networks and a pretext task that they do not name."""


@dataclass(frozen=True, kw_only=True)
class Cifar10Protocol:
    """What is the same in all cells of the table.

    Args:
        task: The pretext task. The slides do not say which they have.
        penalty: λ of the processor.
        features: d_f, the features that the processor makes of an image.
        steps: Steps of the processor.
        epochs: Passes of the pretext task over the images without labels.
        half: Share of the labelled images in the second row, which the slides call half.
        scale: Share of all images and of n0. 0.02 is a trial of a minute.
        seed: Seed of the split, the starts and the batches.
    """

    task: TaskName = "rotation"
    penalty: float = 0.3
    features: int = 64
    steps: int = 300
    epochs: int = 10
    half: float = 0.5
    scale: float = 1.0
    seed: int = 0

    def pretext_task(self) -> PretextTask:
        """The pretext task with its defaults."""
        tasks: dict[TaskName, PretextTask] = {
            "rotation": Rotation(self.seed),
            "colourisation": Colourisation(),
            "split_half": SplitHalf(),
        }
        return tasks[self.task]


@dataclass(frozen=True)
class Split:
    """The training images in three parts without overlap, and the test images; each images [n, 3, 32, 32] and classes.

    Attributes:
        extra: A tenth, for the processor.
        unlabelled: Six tenths, whose classes nobody reads.
        labelled: Three tenths, for the probe.
        test: The test images.
    """

    extra: Pairs
    unlabelled: Pairs
    labelled: Pairs
    test: Pairs

    @staticmethod
    def of(train: Pairs, test: Pairs, scale: float, seed: int) -> "Split":
        """Split the training images at random.

        Args:
            train: Images and classes.
            test: Images and classes.
            scale: Share of all images that is used.
            seed: Seed of the split.
        """
        order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(seed))
        tenth = round(len(order) * scale / 10)
        few = round(len(test[0]) * scale)

        def part(first: int, last: int) -> Pairs:
            rows = order[first * tenth : last * tenth]
            return train[0][rows], train[1][rows]

        return Split(part(0, 1), part(1, 7), part(7, 10), (test[0][:few], test[1][:few]))


def read_cifar10(folder: str) -> tuple[Pairs, Pairs]:
    """Training and test images, float32 [n, 3, 32, 32] in [0, 1], and their classes, int64 [n].

    Args:
        folder: Holds train.parquet and test.parquet with the columns img {bytes, path} and label. Environment variables
            are filled in.

    Raises:
        ValueError: If a file is not there, or has something else in a row.
    """
    paths = [Path(filled_in(folder)) / f"{part}.parquet" for part in ("train", "test")]
    for path in paths:
        if not path.exists():
            raise ValueError(
                f"Expected CIFAR-10 as parquet with the columns img {{bytes, path}} and label in {path}, got no file."
            )
    train, test = (_read_parquet(path) for path in paths)
    return train, test


def measure_ssl(split: Split, protocol: Cifar10Protocol, sizes: list[int]) -> dict[str, Any]:
    """Accuracies of plain self-supervised learning, and of the same with n0 more labels for the probe.

    Args:
        split: The images.
        protocol: What is the same in all cells.
        sizes: The values of n0, as in the table; they are scaled here.
    """
    started = time.perf_counter()
    pipeline = PretextPipeline(_pretext_network(protocol, convolutional_network(protocol.seed)))
    pipeline.fit(split.unlabelled[0], split.labelled)
    cell = _accuracies(pipeline, split, protocol)
    features, of_extra = pipeline.transform(split.labelled[0]), pipeline.transform(split.extra[0])
    of_test = pipeline.transform(split.test[0])
    cell["pooled"] = {}
    for row, number in _rows(split, protocol).items():
        cell["pooled"][row] = {}
        for size in sizes:
            n0 = round(size * protocol.scale)
            known = torch.cat([features[:number], of_extra[:n0]])
            labels = torch.cat([split.labelled[1][:number], split.extra[1][:n0]])
            cell["pooled"][row][str(size)] = Probe().fit(known, labels).score(of_test, split.test[1])
    return cell | {"seconds": time.perf_counter() - started}


def measure_processor(split: Split, protocol: Cifar10Protocol, size: int) -> dict[str, Any]:
    """Accuracies with a processor that has learnt from n0 extra images.

    Args:
        split: The images.
        protocol: What is the same in all cells.
        size: n0, as in the table; it is scaled here.
    """
    started = time.perf_counter()
    n0 = round(size * protocol.scale)
    linear = mlp_network(CONVOLUTIONAL_FEATURES, [], protocol.features, protocol.seed, torch.float32)
    processor = Processor(
        nn.Sequential(convolutional_network(protocol.seed), *linear),
        protocol.penalty,
        steps=protocol.steps,
        lr=2e-3,
        ridge=1e-3,
        batch_size=512,
        seed=protocol.seed,
        verbose=True,
    )
    width = CONVOLUTIONAL_FEATURES
    trunk = nn.Sequential(mlp_network(protocol.features, [width], width, protocol.seed, torch.float32), nn.ReLU())
    pipeline = PretextPipeline(_pretext_network(protocol, trunk), processor)
    extra = (split.extra[0][:n0], split.extra[1][:n0])
    pipeline.fit(split.unlabelled[0], split.labelled, extra)
    cell = _accuracies(pipeline, split, protocol)
    features, of_test = processor.transform(split.labelled[0]), processor.transform(split.test[0])
    for row, number in _rows(split, protocol).items():
        probe = Probe().fit(features[:number], split.labelled[1][:number])
        cell[row]["processed"] = probe.score(of_test, split.test[1])
    return cell | {"seconds": time.perf_counter() - started}


def _pretext_network(protocol: Cifar10Protocol, trunk: nn.Module) -> PretextNetwork:
    task = protocol.pretext_task()
    return PretextNetwork(
        trunk, CONVOLUTIONAL_FEATURES, [task], epochs=protocol.epochs, seed=protocol.seed, verbose=True
    )


def _rows(split: Split, protocol: Cifar10Protocol) -> dict[str, int]:
    """Labelled images in each row of the table."""
    number = len(split.labelled[0])
    return {"full": number, "half": round(number * protocol.half)}


def _accuracies(pipeline: PretextPipeline, split: Split, protocol: Cifar10Protocol) -> dict[str, Any]:
    """Of a linear probe on the hidden layer, and on what the heads predict, which is the ψ of the theory."""
    network = pipeline.network
    cell: dict[str, Any] = {row: {} for row in _rows(split, protocol)}
    for name, represent in (("hidden", network.transform), ("predicted", network.predict)):
        features, of_test = represent(split.labelled[0]), represent(split.test[0])
        for row, number in _rows(split, protocol).items():
            probe = Probe().fit(features[:number], split.labelled[1][:number])
            cell[row][name] = probe.score(of_test, split.test[1])
    return cell


def _read_parquet(path: Path) -> Pairs:
    table = parquet.read_table(path)
    for column in ("img", "label"):
        if column not in table.column_names:
            raise ValueError(f"Expected the columns img and label in {path}, got {table.column_names}.")
    images = np.empty((len(table), 32, 32, 3), dtype=np.uint8)
    files = table.column("img").to_pylist()
    for row, file in enumerate(track(files, f"read {path.name}", transient=True)):
        try:
            images[row] = np.asarray(Image.open(io.BytesIO(file["bytes"])).convert("RGB"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Expected an image of 32 by 32 pixels in row {row} of the column img of {path}: {error}"
            ) from error
    labels = torch.from_numpy(table.column("label").to_numpy().astype(np.int64))
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255, labels
