"""The experiment of the slides on CIFAR-10: does a processor trained on downstream images help a pretext task?"""

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor, nn

from taskrobust._io.parquet import read_parquet_images
from taskrobust._io.paths import expand_variables
from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1, SHARE, Checked
from taskrobust.studies.pretext.networks import CONVOLUTIONAL_FEATURES, convolutional_network, mlp_network
from taskrobust.studies.pretext.pipeline import PretextNetwork, PretextPipeline, Probe
from taskrobust.studies.pretext.processor import Pairs, Processor
from taskrobust.studies.pretext.tasks import Colorization, PretextTask, Rotation, SplitHalf

TaskName = Literal["rotation", "colorization", "split_half"]

SLIDES = {
    "full": {"ssl": 79.31, "1000": 9.95, "2000": 9.97, "3000": 9.99, "4000": 10.01, "5000": 9.96},
    "half": {"ssl": 75.25, "1000": 10.00, "2000": 10.01, "3000": 9.99, "4000": 9.99, "5000": 10.01},
}
"""Accuracies of the slides in percent. The slides do not specify the networks and the pretext task."""


@dataclass(kw_only=True)
class Cifar10Protocol(Checked):
    """Settings that all cells of the table share.

    Args:
        task: The pretext task. The slides do not specify it.
        penalty: λ of the processor.
        features: Number of features d_f of the processor.
        steps: Training steps of the processor, each on all n0 images and 512 unlabeled ones.
        epochs: Passes of the pretext task over the unlabeled images.
        half: Share of the labeled images in the rows that the slides call half.
        scale: Share of all images and of n0. A trial with 0.02 takes a minute.
        seed: Seed of the split, the initial weights and the batches.
    """

    group: ClassVar = "protocol"
    task: TaskName = "rotation"
    penalty: Annotated[float, AT_LEAST_0] = 0.3
    features: Annotated[int, AT_LEAST_1] = 64
    steps: Annotated[int, AT_LEAST_0] = 100
    epochs: Annotated[int, AT_LEAST_0] = 10
    half: Annotated[float, SHARE] = 0.5
    scale: Annotated[float, SHARE] = 1.0
    seed: Annotated[int, AT_LEAST_0] = 0

    def pretext_task(self) -> PretextTask:
        """Create the pretext task."""
        tasks: dict[TaskName, PretextTask] = {
            "rotation": Rotation(self.seed),
            "colorization": Colorization(),
            "split_half": SplitHalf(),
        }
        return tasks[self.task]

    def number_of_extra(self, size: int) -> int:
        """Scale n0.

        Args:
            size: n0 before scaling.
        """
        return round(size * self.scale)


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of the training images, and the test images: images [n, 3, 32, 32] and their classes.

    Attributes:
        extra: A tenth, for the processor.
        unlabeled: Six tenths, whose classes are not used.
        labeled: Three tenths, for the probe.
        test: The test images.
    """

    extra: Pairs
    unlabeled: Pairs
    labeled: Pairs
    test: Pairs

    @staticmethod
    def of(train: Pairs, test: Pairs, scale: float, seed: int) -> "Split":
        """Split the training images randomly.

        Args:
            train: Training images and classes.
            test: Test images and classes.
            scale: Share of all images to use.
            seed: Seed of the split.
        """
        order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(seed))
        tenth = round(len(order) * scale / 10)
        few = round(len(test[0]) * scale)

        def part(first: int, last: int) -> Pairs:
            rows = order[first * tenth : last * tenth]
            return train[0][rows], train[1][rows]

        return Split(part(0, 1), part(1, 7), part(7, 10), (test[0][:few], test[1][:few]))


def identity(folder: str) -> dict[str, Any]:
    """Identify the images by their folder and the checksums of the files.

    Args:
        folder: See ``read_cifar10``.
    """
    return {
        "data": str(Path(expand_variables(folder)).resolve()),
        "crc32": [crc32(path.read_bytes()) for path in _files(folder)],
    }


def read_cifar10(folder: str) -> tuple[Pairs, Pairs]:
    """Read training and test images, float32 [n, 3, 32, 32] in [0, 1], and their classes, int64 [n].

    Args:
        folder: Folder of train.parquet and test.parquet with the columns img {bytes, path} and label. Environment
            variables are expanded.

    Raises:
        ValueError: If a file or column is missing, or a row is not an image of the expected size.
    """
    train, test = (_read_parquet(path) for path in _files(folder))
    return train, test


def measure_ssl(split: Split, protocol: Cifar10Protocol, file: Path) -> dict[str, Any]:
    """Measure the accuracies of plain self-supervised learning.

    Args:
        split: The images.
        protocol: Settings that all cells share.
        file: Output file for the representations that ``measure_pooled`` reads.
    """
    started = time.perf_counter()
    pipeline = PretextPipeline(_pretext_network(protocol, convolutional_network(protocol.seed)))
    pipeline.pretrain(split.unlabeled[0])
    features, of_test, of_extra = (pipeline.transform(x) for x, _ in (split.labeled, split.test, split.extra))
    torch.save((features, of_test, of_extra), file)
    cell = _accuracies(pipeline.network, (features, of_test), split, protocol)
    return cell | {"seconds": time.perf_counter() - started}


def measure_pooled(split: Split, protocol: Cifar10Protocol, file: Path, size: int) -> dict[str, float]:
    """Measure the accuracies of plain self-supervised learning with n0 more labels for the probe, by row.

    Args:
        split: The images.
        protocol: Settings that all cells share.
        file: Output file of ``measure_ssl``.
        size: n0 before scaling.
    """
    features, of_test, of_extra = torch.load(file)
    n0 = protocol.number_of_extra(size)
    cell = {}
    for row, number in _rows(split, protocol).items():
        known = torch.cat([features[:number], of_extra[:n0]])
        labels = torch.cat([split.labeled[1][:number], split.extra[1][:n0]])
        cell[row] = Probe().fit(known, labels).score(of_test, split.test[1])
    return cell


def measure_processor(split: Split, protocol: Cifar10Protocol, size: int) -> dict[str, Any]:
    """Measure the accuracies with a processor trained on n0 extra images.

    Args:
        split: The images.
        protocol: Settings that all cells share.
        size: n0 before scaling.
    """
    started = time.perf_counter()
    n0 = protocol.number_of_extra(size)
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
    pipeline.pretrain(split.unlabeled[0], extra)
    hidden = pipeline.transform(split.labeled[0]), pipeline.transform(split.test[0])
    cell = _accuracies(pipeline.network, hidden, split, protocol)
    processed = processor.transform(split.labeled[0]), processor.transform(split.test[0])
    for row, accuracy in _probed(processed, split, protocol).items():
        cell[row]["processed"] = accuracy
    return cell | {"seconds": time.perf_counter() - started}


def _pretext_network(protocol: Cifar10Protocol, trunk: nn.Module) -> PretextNetwork:
    task = protocol.pretext_task()
    return PretextNetwork(
        trunk, CONVOLUTIONAL_FEATURES, [task], epochs=protocol.epochs, seed=protocol.seed, verbose=True
    )


def _rows(split: Split, protocol: Cifar10Protocol) -> dict[str, int]:
    """Number of labeled images by row of the table."""
    number = len(split.labeled[0])
    return {"full": number, "half": round(number * protocol.half)}


def _accuracies(
    network: PretextNetwork, hidden: tuple[Tensor, Tensor], split: Split, protocol: Cifar10Protocol
) -> dict[str, Any]:
    """Accuracies of linear probes on the hidden layer and on the predictions of the heads, ψ of the theory."""
    predicted = network.predict_from(hidden[0]), network.predict_from(hidden[1])
    of_hidden, of_predicted = (_probed(features, split, protocol) for features in (hidden, predicted))
    return {row: {"hidden": of_hidden[row], "predicted": of_predicted[row]} for row in of_hidden}


def _probed(features: tuple[Tensor, Tensor], split: Split, protocol: Cifar10Protocol) -> dict[str, float]:
    """Accuracy of a linear probe by row, from the features of the labeled and test images."""
    accuracies = {}
    for row, number in _rows(split, protocol).items():
        probe = Probe().fit(features[0][:number], split.labeled[1][:number])
        accuracies[row] = probe.score(features[1], split.test[1])
    return accuracies


def _files(folder: str) -> list[Path]:
    paths = [Path(expand_variables(folder)) / f"{part}.parquet" for part in ("train", "test")]
    for path in paths:
        if not path.exists():
            raise ValueError(
                f"Expected CIFAR-10 as parquet with the columns img {{bytes, path}} and label in {path}, got no file."
            )
    return paths


def _read_parquet(path: Path) -> Pairs:
    table = read_parquet_images(path, num_classes=10)
    images = np.empty((len(table), 32, 32, 3), dtype=np.uint8)
    for row in track(range(len(table)), f"read {path.name}", transient=True):
        try:
            images[row] = np.asarray(Image.open(io.BytesIO(table.content(row)), formats=("PNG", "JPEG")).convert("RGB"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Expected an image of 32 by 32 pixels in row {row} of the column {table.column} of {path}: {error}"
            ) from error
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255, torch.from_numpy(table.labels)
