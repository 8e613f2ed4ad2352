"""Synthetic data with a known distribution of inputs x, pretext labels z and downstream labels y."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from taskrobust.studies.pretext.least_squares import Moments


class Sample(NamedTuple):
    """Independent samples.

    Attributes:
        inputs: x, shape [n, d_x], or images [n, 3, size, size] in [0, 1].
        pretext: z, shape [n, d_z].
        labels: y, shape [n, d_y], or classes, int64 [n].
    """

    inputs: Tensor
    pretext: Tensor
    labels: Tensor


class GaussianData:
    r"""Gaussian data whose pretext labels depend on the downstream label and, more strongly, on a nuisance.

    .. math:: x = Q \, [\, y + s_y e_1;\; m + s_m e_2;\; u \,], \qquad z = b P y + g R m + s_z e_3

    with standard Gaussian y, nuisance m, free dimensions u and noise e, an orthogonal matrix Q and orthonormal columns
    [P, R]. A processor that keeps the first block satisfies (C1) and (C2); one that only keeps u satisfies (C1) but
    loses y. The optimal processor of the population is of the first kind for :math:`\lambda < 1 / b^2` and of the
    second kind beyond.

    Example:
        >>> x, z, y = GaussianData().sample(5, seed=0)
        >>> x.shape, z.shape, y.shape
        (torch.Size([5, 52]), torch.Size([5, 20]), torch.Size([5, 2]))

    Args:
        labels: Dimensions of y.
        nuisance: Dimensions of m.
        free: Dimensions of u, which is independent of y and z.
        pretext: Dimensions of z, at least ``labels + nuisance``.
        label_noise: s_y. The smallest possible error is s_y² / (1 + s_y²), that of a constant is 1.
        nuisance_noise: s_m.
        pretext_noise: s_z.
        label_strength: b.
        nuisance_strength: g.
        seed: Seed of Q, P and R.

    Raises:
        ValueError: If z has too few dimensions.
    """

    def __init__(
        self,
        labels: int = 2,
        nuisance: int = 10,
        free: int = 40,
        pretext: int = 20,
        *,
        label_noise: float = 1.0,
        nuisance_noise: float = 0.5,
        pretext_noise: float = 0.5,
        label_strength: float = 1.0,
        nuisance_strength: float = 2.0,
        seed: int = 0,
    ) -> None:
        if pretext < labels + nuisance:
            raise ValueError(
                f"Expected at least labels + nuisance = {labels + nuisance} pretext dimensions, got {pretext}."
            )
        self.sizes = (labels, nuisance, free)
        self.noise = (label_noise, nuisance_noise, pretext_noise)
        self.label_strength = label_strength
        generator = torch.Generator().manual_seed(seed)
        self.rotation = _orthogonal(sum(self.sizes), generator)
        columns = _orthogonal(pretext, generator)
        self.of_labels = label_strength * columns[:, :labels]
        self.of_nuisance = nuisance_strength * columns[:, labels : labels + nuisance]

    @property
    def bayes_mse(self) -> float:
        """Mean squared error of E[y | x], averaged over the dimensions of y."""
        return self.noise[0] ** 2 / (1 + self.noise[0] ** 2)

    @property
    def critical_penalty(self) -> float:
        """Penalty λ = 1 / b² beyond which the optimal processor of the population loses y."""
        return 1 / self.label_strength**2

    def sample(self, number: int, seed: int) -> Sample:
        """Draw samples, float64.

        Args:
            number: Number of samples.
            seed: Seed of the draws.
        """
        generator = torch.Generator().manual_seed(seed)

        def gaussian(dimensions: int) -> Tensor:
            return torch.randn(number, dimensions, generator=generator, dtype=torch.float64)

        labels, nuisance, free = (gaussian(size) for size in self.sizes)
        label_noise, nuisance_noise, pretext_noise = self.noise
        blocks = [
            labels + label_noise * gaussian(self.sizes[0]),
            nuisance + nuisance_noise * gaussian(self.sizes[1]),
            free,
        ]
        pretext = labels @ self.of_labels.T + nuisance @ self.of_nuisance.T
        pretext += pretext_noise * gaussian(len(self.of_labels))
        return Sample(torch.cat(blocks, dim=1) @ self.rotation.T, pretext, labels)

    def moments(self) -> Moments:
        """Compute the covariances of the population."""
        labels, nuisance, free = self.sizes
        label_noise, nuisance_noise, pretext_noise = self.noise
        variances = [1 + label_noise**2] * labels + [1 + nuisance_noise**2] * nuisance + [1.0] * free
        of_label_block, of_nuisance_block = self.rotation[:, :labels], self.rotation[:, labels : labels + nuisance]
        in_pretext = torch.eye(len(self.of_labels), dtype=torch.float64)
        return Moments(
            xx=self.rotation * torch.tensor(variances, dtype=torch.float64) @ self.rotation.T,
            xy=of_label_block,
            xz=of_label_block @ self.of_labels.T + of_nuisance_block @ self.of_nuisance.T,
            yy=torch.eye(labels, dtype=torch.float64),
            yz=self.of_labels.T,
            zz=self.of_labels @ self.of_labels.T
            + self.of_nuisance @ self.of_nuisance.T
            + pretext_noise**2 * in_pretext,
        )

    def oracle(self, width: int) -> Tensor:
        """Create a linear processor of the first kind: the block of y, then free dimensions.

        Args:
            width: Number of features.

        Returns:
            Matrix of shape [width, d_x].
        """
        labels, nuisance, free = self.sizes
        assert labels <= width <= labels + free
        return torch.cat([self.rotation[:, :labels], self.rotation[:, labels + nuisance :][:, : width - labels]], 1).T

    def blind(self, width: int) -> Tensor:
        """Create a linear processor of the second kind: only free dimensions.

        Args:
            width: Number of features.

        Returns:
            Matrix of shape [width, d_x].
        """
        labels, nuisance, free = self.sizes
        assert width <= free
        return self.rotation[:, labels + nuisance :][:, :width].T


@dataclass(frozen=True)
class ClassMixture:
    r"""Two views of a class with an adjustable dependence given the class.

    .. math:: x \sim \mathcal N(\mu_y, I), \qquad z = (1 - a) \tilde z + a x, \quad \tilde z \sim \mathcal N(\nu_y, I)

    with centers drawn uniformly from [0, 10) in each dimension. x is truncated or padded with zeros to the size of z.

    Example:
        >>> x, z, y = ClassMixture(dependence=1.0).sample(5, seed=0)
        >>> x.shape, z.shape, y.dtype
        (torch.Size([5, 20]), torch.Size([5, 10]), torch.int64)

    Args:
        classes: Number of classes.
        inputs: Dimensions of x.
        pretext: Dimensions of z.
        dependence: a in [0, 1]. With 0, x and z are independent given the class; with 1, z is x.
        seed: Seed of the centers.

    References:
        Lee et al., Predicting What You Already Know Helps: Provable Self-Supervised Learning, 2020, simulations.
    """

    classes: int = 5
    inputs: int = 20
    pretext: int = 10
    dependence: float = 0.0
    seed: int = 0

    def sample(self, number: int, seed: int) -> Sample:
        """Draw samples, float64, with classes as labels.

        Args:
            number: Number of samples.
            seed: Seed of the draws.
        """
        fixed = torch.Generator().manual_seed(self.seed)
        centers = 10 * torch.rand(self.classes, self.inputs + self.pretext, generator=fixed, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(self.classes, (number,), generator=generator)
        shape = (number, self.inputs + self.pretext)
        both = centers[labels] + torch.randn(shape, generator=generator, dtype=torch.float64)
        inputs, independent = torch.split(both, [self.inputs, self.pretext], dim=1)
        fitted = torch.nn.functional.pad(inputs, (0, max(0, self.pretext - self.inputs)))[:, : self.pretext]
        return Sample(inputs, (1 - self.dependence) * independent + self.dependence * fitted, labels)


@dataclass(frozen=True)
class ClassImages:
    """Small color images: a smooth pattern per class plus smooth random clouds per image.

    With ``clouds=0``, the two halves of an image are independent given its class. Clouds extend across the middle and
    make them dependent.

    Example:
        >>> images, classes = ClassImages(classes=10).sample(4, seed=0)
        >>> images.shape[:2], classes.shape
        (torch.Size([4, 3]), torch.Size([4]))

    Args:
        classes: Number of classes.
        size: Height and width, in pixels.
        pattern: Contrast of the patterns.
        clouds: Contrast of the clouds.
        noise: Contrast of the independent noise per pixel.
        seed: Seed of the patterns.
    """

    classes: int = 10
    size: int = 16
    pattern: float = 0.15
    clouds: float = 0.1
    noise: float = 0.1
    seed: int = 0

    def sample(self, number: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw images, float32 [n, 3, size, size] in [0, 1], and their classes, int64 [n].

        Args:
            number: Number of samples.
            seed: Seed of the draws.
        """
        patterns = _soft(self.classes, self.size, torch.Generator().manual_seed(self.seed))
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(self.classes, (number,), generator=generator)
        clouds = _soft(number, self.size, generator)
        noise = torch.randn(number, 3, self.size, self.size, generator=generator)
        images = 0.5 + self.pattern * patterns[labels] + self.clouds * clouds + self.noise * noise
        return images.clamp(0, 1), labels


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    gaussian = torch.randn(size, size, generator=generator, dtype=torch.float64)
    rotation: Tensor = torch.linalg.qr(gaussian).Q
    return rotation


def _soft(number: int, size: int, generator: torch.Generator) -> Tensor:
    """Smoothly upscaled coarse Gaussian noise with a standard deviation of about 1, shape [number, 3, size, size]."""
    coarse = torch.randn(number, 3, 4, 4, generator=generator)
    soft = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    return soft / soft.std(dim=(1, 2, 3), keepdim=True)
