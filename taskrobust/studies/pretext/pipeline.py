"""Learning from unlabeled and few labeled images: processor, pretext tasks and linear probe."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from taskrobust.loss import MultiTaskLoss
from taskrobust.outputs import DisjointRows, TaskLosses
from taskrobust.risk import RiskEstimator
from taskrobust.studies.pretext.least_squares import fit_linear
from taskrobust.studies.pretext.processor import Pairs, Processor, minimize, random_batches
from taskrobust.studies.pretext.tasks import PretextTask


class Probe:
    """Ridge regression of the downstream labels in closed form; classes are one-hot encoded.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> Probe().fit(features, torch.tensor([0, 0, 1, 1])).predict(features)
        tensor([0, 0, 1, 1])

    Args:
        ridge: Ridge relative to the mean variance of the features.
    """

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def fit(self, features: Tensor, labels: Tensor) -> Self:
        """Fit the probe.

        Args:
            features: Shape [n, d].
            labels: Classes, int64 [n], or numbers [n, d_y].
        """
        self._of_classes = not labels.dtype.is_floating_point
        targets = functional.one_hot(labels).to(features) if self._of_classes else labels
        self._map = fit_linear(features, targets, self.ridge)
        return self

    def predict(self, features: Tensor) -> Tensor:
        """Predict classes [n] or numbers [n, d_y]."""
        predictions = self._map(features)
        return predictions.argmax(1) if self._of_classes else predictions

    def score(self, features: Tensor, labels: Tensor) -> float:
        """Compute the accuracy for classes, or R² averaged over the targets for numbers."""
        predictions = self.predict(features)
        if self._of_classes:
            return float((predictions == labels).double().mean())
        return float((1 - (predictions - labels).square().mean(0) / labels.var(dim=0, unbiased=False)).mean())


class PretextNetwork:
    r"""Learns a representation from pretext tasks, with one linear head per task.

    Example:
        >>> from taskrobust.studies.pretext import CONVOLUTIONAL_FEATURES, ClassImages, Rotation, convolutional_network
        >>> images, classes = ClassImages(classes=2).sample(64, seed=0)
        >>> trunk = convolutional_network()
        >>> network = PretextNetwork(trunk, CONVOLUTIONAL_FEATURES, [Rotation()], epochs=1, batch_size=32)
        >>> network.fit(images).transform(images).shape == (64, CONVOLUTIONAL_FEATURES)
        True

    Args:
        trunk: Maps inputs to the representation, shape [n, width]. Trained in place.
        width: Width of the representation.
        tasks: The pretext tasks.
        criterion: Weights the tasks. Defaults to softmax minimax with risks relative to the initial ones, since
            cross-entropies and squared errors have different units.
        epochs: Number of passes over the images.
        batch_size: Images per step. Each step includes all tasks.
        lr: Peak learning rate of Adam with a cosine schedule.
        seed: Seed of the heads and of the order of the images.
        verbose: Whether to show progress.
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        tasks: Sequence[PretextTask],
        criterion: MultiTaskLoss | None = None,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        lr: float = 2e-3,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.trunk = trunk
        self.tasks = list(tasks)
        self.criterion = criterion or MultiTaskLoss(
            [task.name for task in tasks], risk=RiskEstimator(normalization="initial")
        )
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.seed = seed
        self.verbose = verbose
        self.fitted = False
        self.heads = nn.ModuleDict()
        generator = torch.Generator().manual_seed(seed)
        for task in tasks:
            self.heads[task.name] = head = nn.Linear(width, task.width)
            nn.init.normal_(head.weight, std=width**-0.5, generator=generator)
            nn.init.zeros_(head.bias)

    def fit(self, images: Tensor, processor: Processor | None = None) -> Self:
        """Train the trunk and the heads.

        Args:
            images: Shape [n, 3, size, size], in [0, 1].
            processor: Fitted processor to apply to the inputs of each task.

        Raises:
            ValueError: If there are fewer images than ``batch_size``.
        """
        if len(images) < self.batch_size:
            raise ValueError(f"Expected at least one batch of {self.batch_size} images, got {len(images)}.")
        self.processor = processor
        self.trunk.train()
        modules = nn.ModuleList([self.trunk, self.heads, self.criterion])
        steps = self.epochs * (len(images) // self.batch_size)
        minimize(modules.parameters(), self._totals(images), self.lr, steps)
        self.fitted = True
        return self

    @torch.no_grad()
    def transform(self, images: Tensor) -> Tensor:
        """Compute the representation, shape [n, width].

        Args:
            images: Shape [n, 3, size, size].

        Raises:
            sklearn.exceptions.NotFittedError: Before ``fit``.
        """
        from sklearn.exceptions import NotFittedError

        if not self.fitted:
            raise NotFittedError("Expected a fitted network, got a new one: call fit first.")
        self.trunk.eval()
        return torch.cat([self.trunk(self._processed(part)) for part in torch.split(images, 1000)])

    def predict(self, images: Tensor) -> Tensor:
        """Compute the predictions of the heads, ψ of the theory, shape [n, sum of the tasks' d_z].

        Args:
            images: Shape [n, 3, size, size].
        """
        return self.predict_from(self.transform(images))

    @torch.no_grad()
    def predict_from(self, features: Tensor) -> Tensor:
        """Compute the predictions of the heads from the representation, shape [n, sum of the tasks' d_z].

        Args:
            features: Output of ``transform``, shape [n, width].
        """
        return torch.cat([self.heads[task.name](features) for task in self.tasks], dim=1)

    def _totals(self, images: Tensor) -> Iterator[Tensor]:
        """Total loss of each step."""
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in track(range(self.epochs), "pretext tasks", disable=not self.verbose, transient=True):
            for rows in random_batches(len(images), self.batch_size, generator):
                yield self.criterion(*self._losses(images[rows], rows, epoch))
            self.criterion.end_epoch()

    def _losses(self, images: Tensor, index: Tensor, epoch: int) -> tuple[TaskLosses, DisjointRows]:
        """Losses of the tasks, and their shared activation."""
        pairs = [task.pairs(images, index.numpy(), epoch) for task in self.tasks]
        features = self.trunk(self._processed(torch.cat([inputs for inputs, _ in pairs])))
        owner = torch.arange(len(pairs)).repeat_interleave(len(images))
        sums = [
            task.losses(self.heads[task.name](part), targets).sum()
            for task, part, (_, targets) in zip(self.tasks, torch.split(features, len(images)), pairs, strict=True)
        ]
        losses = TaskLosses(torch.stack(sums), torch.full((len(sums),), float(len(images))))
        return losses, DisjointRows(features, owner)

    def _processed(self, inputs: Tensor) -> Tensor:
        return inputs if self.processor is None else self.processor.transform(inputs)


class PretextPipeline:
    """A processor, pretext tasks and a linear probe.

    Example:
        >>> from taskrobust.studies.pretext import CONVOLUTIONAL_FEATURES, ClassImages, Rotation, convolutional_network
        >>> images, classes = ClassImages(classes=2).sample(64, seed=0)
        >>> trunk = convolutional_network()
        >>> network = PretextNetwork(trunk, CONVOLUTIONAL_FEATURES, [Rotation()], epochs=1, batch_size=32)
        >>> pipeline = PretextPipeline(network).fit(images, (images, classes))
        >>> pipeline.predict(images).shape
        torch.Size([64])

    Args:
        network: Learns the representation from the pretext tasks.
        processor: Applied to the images first. None results in plain self-supervised learning.
        probe: Predicts the downstream labels from the representation.
    """

    def __init__(self, network: PretextNetwork, processor: Processor | None = None, probe: Probe | None = None) -> None:
        self.network = network
        self.processor = processor
        self.probe = probe or Probe()

    def fit(self, unlabeled: Tensor, labeled: Pairs, extra: Pairs | None = None) -> Self:
        """Train the processor, the network and the probe, in this order.

        Args:
            unlabeled: n1 images for the pretext tasks.
            labeled: n2 images and their classes, for the probe.
            extra: n0 images and their classes, for the processor.

        Raises:
            ValueError: If there is a processor but no extra samples, or vice versa.
        """
        self.pretrain(unlabeled, extra)
        images, classes = labeled
        self.probe.fit(self.transform(images), classes)
        return self

    def pretrain(self, unlabeled: Tensor, extra: Pairs | None = None) -> Self:
        """Train the processor and the network.

        Args:
            unlabeled: n1 images for the pretext tasks.
            extra: n0 images and their classes, for the processor.

        Raises:
            ValueError: If there is a processor but no extra samples, or vice versa.
        """
        if (self.processor is None) != (extra is None):
            raise ValueError("Expected extra samples if and only if there is a processor.")
        if self.processor is not None and extra is not None:
            images, classes = extra
            pretext = [task.pairs(unlabeled, np.arange(len(unlabeled)), 0) for task in self.network.tasks]
            self.processor.fit((images, functional.one_hot(classes).to(images)), pretext)
        self.network.fit(unlabeled, self.processor)
        return self

    def transform(self, images: Tensor) -> Tensor:
        """Compute the representation, shape [n, width]."""
        return self.network.transform(images)

    def predict(self, images: Tensor) -> Tensor:
        """Predict the classes, int64 [n]."""
        return self.probe.predict(self.transform(images))

    def score(self, images: Tensor, classes: Tensor) -> float:
        """Compute the accuracy."""
        return self.probe.score(self.transform(images), classes)
