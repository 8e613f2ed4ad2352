from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Self

import torch
from rich.progress import track
from torch import Tensor, nn

from taskrobust.studies.pretext.least_squares import RIDGE, Moments, linear_mse
from taskrobust.studies.pretext.losses import linear_processor_loss, processor_loss

Pairs = tuple[Tensor, Tensor]
"""Inputs [n, ...] and their labels [n, k]."""


class Processor:
    r"""Learns features f of the inputs that predict y but not z, from a few extra downstream samples.

    .. math:: \min_f \mathcal L_{n_1, n_0}(f)

    by Adam with a cosine schedule, see ``processor_loss``. The features are whitened on the pretext inputs, since the
    losses do not depend on a linear map after f.

    Example:
        >>> from taskrobust.studies.pretext import GaussianData, linear_network
        >>> x, z, y = GaussianData().sample(100, seed=0)
        >>> processor = Processor(linear_network(52, 12), penalty=0.3, steps=5)
        >>> _ = processor.fit((x[:50], y[:50]), (x, z))
        >>> processor.transform(x).shape
        torch.Size([100, 12])

    Args:
        network: f, maps inputs [n, ...] to features [n, d_f]. Trained in place.
        penalty: λ, the weight of the error of z relative to that of y.
        steps: Number of steps.
        lr: Peak learning rate.
        ridge: Ridge of the least squares solutions, relative to the mean variance of the features.
        batch_size: Pretext samples per step and task. None uses all. Each step uses all extra samples, since their
            number determines whether f preserves y.
        seed: Seed of the batches.
        verbose: Whether to show progress.

    References:
        Huang, Teng, He, Can Pretext-Based Self-Supervised Learning Be Boosted by Downstream Data?, BAAI 2021.
    """

    _mean: Tensor | None = None
    _whitening: Tensor

    def __init__(
        self,
        network: nn.Module,
        penalty: float = 0.3,
        *,
        steps: int = 600,
        lr: float = 0.03,
        ridge: float = RIDGE,
        batch_size: int | None = None,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.network = network
        self.penalty = penalty
        self.steps = steps
        self.lr = lr
        self.ridge = ridge
        self.batch_size = batch_size
        self.seed = seed
        self.verbose = verbose

    def fit(self, extra: Pairs, pretext: Pairs | Sequence[Pairs] | Moments) -> Self:
        """Train the processor.

        Args:
            extra: n0 inputs and their downstream labels, shape [n0, d_y]. One-hot for classes.
            pretext: n1 inputs and their pretext labels, shape [n1, d_z]; one such pair per pretext task, whose losses
                are averaged; or the covariances of the population, which correspond to an infinite n1 and require a
                single ``nn.Linear`` without bias as network.

        Raises:
            ValueError: If covariances are used with another network or with a batch size, or if the dtypes of the
                inputs and the network differ.
        """
        tasks = _tasks(pretext)
        for inputs in (extra[0], *(inputs for inputs, _ in tasks)):
            self._check_type(inputs)
        if isinstance(pretext, Moments) and self.batch_size is not None:
            raise ValueError(
                "Expected batch_size=None for the covariances of a population, which have no batches, "
                f"got {self.batch_size}."
            )
        self.network.train()
        generator = torch.Generator().manual_seed(self.seed)
        batches = [_batches(pairs, self.batch_size, generator) for pairs in tasks]

        def loss() -> Tensor:
            if isinstance(pretext, Moments):
                return linear_processor_loss(self._linear().weight, extra, pretext, self.penalty, self.ridge)
            return self._loss(extra, [next(task) for task in batches])

        steps = track(range(self.steps), "processor", disable=not self.verbose, transient=True)
        minimize(self.network.parameters(), (loss() for _ in steps), self.lr, self.steps)
        self._whiten(pretext if isinstance(pretext, Moments) else torch.cat([inputs for inputs, _ in tasks]))
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Compute whitened features, shape [n, d_f].

        Args:
            inputs: x, shape [n, ...].

        Raises:
            sklearn.exceptions.NotFittedError: Before ``fit``.
        """
        mean = self._fitted_mean()
        return (self._features(inputs) - mean) @ self._whitening

    def matrix(self) -> Tensor:
        """Compute the matrix of a linear processor including the whitening, shape [d_f, d_x]."""
        self._fitted_mean()
        return self._whitening.T @ self._linear().weight.detach()

    def score(self, inputs: Tensor, labels: Tensor) -> float:
        """Estimate the share of the variance of y that the best linear predictor on the features explains.

        Args:
            inputs: x, shape [n, ...] with n much larger than d_f. The predictor is fitted to them, and the estimate is
                corrected for this.
            labels: y, shape [n, d_y].
        """
        variance = float(labels.var(dim=0).mean())
        return 1 - linear_mse(self.transform(inputs), labels) / variance

    def _loss(self, extra: Pairs, tasks: Sequence[Pairs]) -> Tensor:
        inputs = [extra[0], *(inputs for inputs, _ in tasks)]
        of_extra, *of_tasks = torch.split(self.network(torch.cat(inputs)), [len(part) for part in inputs])
        losses = [
            processor_loss((of_extra, extra[1]), (features, targets), self.penalty, self.ridge)
            for features, (_, targets) in zip(of_tasks, tasks, strict=True)
        ]
        return torch.stack(losses).mean()

    def _linear(self) -> nn.Linear:
        if not isinstance(self.network, nn.Linear) or self.network.bias is not None:
            raise ValueError(
                "Expected a network of one nn.Linear without bias for the covariances of a population, got "
                f"{type(self.network).__name__}: fit it to samples."
            )
        return self.network

    def _fitted_mean(self) -> Tensor:
        from sklearn.exceptions import NotFittedError

        if self._mean is None:
            raise NotFittedError("Expected a fitted processor, got a new one: call fit first.")
        return self._mean

    def _check_type(self, inputs: Tensor) -> None:
        expected = next(self.network.parameters()).dtype
        if inputs.dtype != expected:
            raise ValueError(f"Expected inputs of the dtype of the network, {expected}, got {inputs.dtype}.")

    @torch.no_grad()
    def _features(self, inputs: Tensor) -> Tensor:
        self._check_type(inputs)
        self.network.eval()
        return torch.cat([self.network(part) for part in torch.split(inputs, 1000)])

    @torch.no_grad()
    def _whiten(self, pretext: Tensor | Moments) -> None:
        if isinstance(pretext, Moments):
            covariance = pretext.processed(self._linear().weight).xx
            self._mean = torch.zeros_like(covariance[0])
        else:
            features = self._features(pretext)
            self._mean = features.mean(0)
            covariance = (features - self._mean).T @ (features - self._mean) / len(features)
        values, vectors = torch.linalg.eigh(covariance)
        smallest = values.max() * self.ridge + torch.finfo(values.dtype).tiny
        self._whitening = vectors / values.clamp(min=smallest).sqrt()


def optimal_linear_processor(population: Moments, features: int, penalty: float) -> Tensor:
    r"""Compute the linear processor with the smallest population loss in closed form, shape [d_f, d_x].

    It consists of the top eigenvectors of :math:`C_y C_y^\top - \lambda C_z C_z^\top` with
    :math:`C_\cdot = \Sigma_{xx}^{-1/2} \Sigma_{x \cdot}`, applied to whitened inputs.

    Args:
        population: Covariances of the population.
        features: Number of features d_f.
        penalty: λ.

    Raises:
        ValueError: If the covariance of the inputs does not have full rank, e.g. with fewer samples than dimensions.
    """
    rank = int(torch.linalg.matrix_rank(population.xx, hermitian=True))
    if rank < len(population.xx):
        raise ValueError(
            f"Expected a covariance of the inputs of full rank, {len(population.xx)}, got {rank}: use more samples."
        )
    values, vectors = torch.linalg.eigh(population.xx)
    root = vectors / values.sqrt() @ vectors.T
    of_y, of_z = root @ population.xy, root @ population.xz
    _, directions = torch.linalg.eigh(of_y @ of_y.T - penalty * of_z @ of_z.T)
    matrix: Tensor = directions[:, -features:].T @ root
    return matrix


def minimize(parameters: Iterable[nn.Parameter], losses: Iterable[Tensor], lr: float, steps: int) -> None:
    """Minimize losses by Adam with a cosine schedule.

    Args:
        parameters: The parameters to train.
        losses: Loss of each step, shape [], computed when it is requested.
        lr: Peak learning rate.
        steps: Number of losses.
    """
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for loss in losses:
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


def random_batches(number: int, size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Rows of the batches of an epoch in random order, without an incomplete last batch.

    Args:
        number: Number of samples.
        size: Samples per batch.
        generator: Source of the order.
    """
    return torch.split(torch.randperm(number, generator=generator), size)[: number // size]


def _batches(pairs: Pairs, size: int | None, generator: torch.Generator) -> Iterator[Pairs]:
    """Yield batches without end, each epoch in a new order."""
    if size is None or size >= len(pairs[0]):
        yield from repeat(pairs)
    else:
        while True:
            for rows in random_batches(len(pairs[0]), size, generator):
                yield pairs[0][rows], pairs[1][rows]


def _tasks(pretext: Pairs | Sequence[Pairs] | Moments) -> Sequence[Pairs]:
    if isinstance(pretext, Moments):
        return []
    return [(pretext[0], pretext[1])] if isinstance(pretext[0], Tensor) else pretext  # type: ignore[return-value,list-item]
