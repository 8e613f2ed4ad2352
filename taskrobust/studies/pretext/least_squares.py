"""Least squares from samples and from covariances."""

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-6
"""Default ridge of the processor losses, relative to the mean variance of the features."""


@dataclass(frozen=True)
class LinearMap:
    """An affine map from features [n, d] to predictions [n, k].

    Args:
        weight: Shape [d, k], float64.
        intercept: Shape [k], float64.
    """

    weight: Tensor
    intercept: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Compute predictions of shape [n, k] in the dtype of the features."""
        return (features.double() @ self.weight + self.intercept).to(features)


@torch.no_grad()
def fit_linear(features: Tensor, targets: Tensor, ridge: float = 0.0) -> LinearMap:
    r"""Solve least squares in closed form, the :math:`\widetilde W` of the slides.

    .. math:: \min_{W, b} \frac1n \|Y - F W - b\|^2 + \gamma s \|W\|^2, \qquad s = \text{mean variance of the features}

    Since the ridge is relative to :math:`s`, predictions do not depend on the unit of the features. Without ridge, this
    is the minimum-norm solution, and directions that are rounding errors in the dtype of the features are ignored.

    Args:
        features: F, shape [n, d].
        targets: Y, shape [n, k].
        ridge: Dimensionless ridge :math:`\gamma`.
    """
    _check_rows(features, targets)
    mean_features, mean_targets = features.double().mean(0), targets.double().mean(0)
    centered, centered_targets = features - mean_features, targets - mean_targets
    if ridge:
        weight = ridge_solution(centered, centered_targets, ridge)
    else:
        weight = torch.linalg.pinv(centered, rtol=_rounding(features)) @ centered_targets
    return LinearMap(weight, mean_targets - mean_features @ weight)


def least_squares_risk(features: Tensor, targets: Tensor, ridge: float = RIDGE) -> Tensor:
    r"""Compute the smallest squared error of a linear prediction of the targets, as a function of the features.

    .. math:: R(F) = \min_{W, b} \frac1n \|Y - F W - b\|^2 + \gamma s(F) \|W\|^2

    By the envelope theorem, the gradient of the minimum is the partial gradient at the minimizer. Therefore, :math:`W`
    is computed without a graph, and the gradient is still exact.

    Args:
        features: F, shape [n, d], differentiable.
        targets: Y, shape [n, k].
        ridge: :math:`\gamma > 0`, relative to the mean variance s of the features.

    Returns:
        The risk, summed over the k targets, shape [].
    """
    _check_rows(features, targets)
    centered, centered_targets = features - features.mean(0), targets - targets.mean(0)
    with torch.no_grad():
        weight = ridge_solution(centered, centered_targets, ridge)
    penalty = ridge * centered.square().mean() * weight.square().sum()
    return (centered_targets - centered @ weight).square().sum() / len(features) + penalty


def linear_mse(features: Tensor, targets: Tensor) -> float:
    """Estimate the mean squared error of the best linear prediction without bias from the samples it is fitted to.

    The sum of squared residuals is divided by n - 1 minus the rank of the features. Its expectation is the error of the
    best linear predictor of the population if the error of the linear model is Gaussian.

    Args:
        features: Shape [n, d].
        targets: Shape [n, k].

    Returns:
        Error averaged over the k targets, in their squared unit.

    Raises:
        ValueError: If there are too few samples.
    """
    _check_rows(features, targets)
    centered, wanted = (values - values.mean(0) for values in (features.double(), targets.double()))
    left, singular, _ = torch.linalg.svd(centered, full_matrices=False)
    basis = left[:, singular > singular.max() * _rounding(features)]
    rank = basis.shape[1]
    freedom = len(features) - 1 - rank
    if freedom < 1:
        raise ValueError(f"Expected more than {rank + 1} samples for features of rank {rank}, got {len(features)}.")
    residuals = wanted - basis @ (basis.T @ wanted)
    return float(residuals.square().sum() / freedom / targets.shape[1])


@dataclass(frozen=True)
class Moments:
    """Covariances of inputs x, pretext labels z and downstream labels y, of a sample or a population.

    Linear processors and least squares only depend on these. Training on those of a population corresponds to
    infinitely many samples.

    Args:
        xx: Shape [d_x, d_x].
        xy: Shape [d_x, d_y].
        xz: Shape [d_x, d_z].
        yy: Shape [d_y, d_y].
        yz: Shape [d_y, d_z].
        zz: Shape [d_z, d_z].
    """

    xx: Tensor
    xy: Tensor
    xz: Tensor
    yy: Tensor
    yz: Tensor
    zz: Tensor

    @staticmethod
    def of(inputs: Tensor, labels: Tensor, pretext: Tensor) -> "Moments":
        """Compute the covariances of n samples, divided by n.

        Args:
            inputs: x, shape [n, d_x].
            labels: y, shape [n, d_y].
            pretext: z, shape [n, d_z].
        """
        x, y, z = (values - values.mean(0) for values in (inputs, labels, pretext))
        n = len(x)
        return Moments(x.T @ x / n, x.T @ y / n, x.T @ z / n, y.T @ y / n, y.T @ z / n, z.T @ z / n)

    def processed(self, matrix: Tensor) -> "Moments":
        """Compute the covariances after processing the inputs as ``x @ matrix.T``.

        Args:
            matrix: A linear processor, shape [d_f, d_x].
        """
        return Moments(matrix @ self.xx @ matrix.T, matrix @ self.xy, matrix @ self.xz, self.yy, self.yz, self.zz)

    def given_labels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the covariances xx, xz and zz of the residuals of the best linear prediction from y."""
        of_x, of_z = (torch.linalg.solve(self.yy, part).T for part in (self.xy.T, self.yz))
        return self.xx - of_x @ self.xy.T, self.xz - of_x @ self.yz, self.zz - of_z @ self.yz

    def mse(self) -> float:
        """Compute the mean squared error of the best linear prediction of y from x, averaged over the d_y targets."""
        explained = self.xy.T @ torch.linalg.pinv(self.xx, hermitian=True) @ self.xy
        return float((self.yy - explained).trace() / len(self.yy))


def least_squares_risk_of_moments(
    features: Tensor, features_targets: Tensor, targets: Tensor, ridge: float = RIDGE
) -> Tensor:
    """Compute ``least_squares_risk`` from covariances, with the same exact gradient.

    Args:
        features: Covariance of the features, shape [d, d], differentiable.
        features_targets: Covariance of features and targets, shape [d, k], differentiable.
        targets: Covariance of the targets, shape [k, k].
        ridge: Ridge relative to the mean variance of the features.
    """
    with torch.no_grad():
        system = features.clone()
        system.diagonal().add_(ridge * features.diagonal().mean() + torch.finfo(features.dtype).tiny)
        weight = torch.linalg.solve(system, features_targets)
    error = targets.trace() - 2 * (weight * features_targets).sum() + (weight * (features @ weight)).sum()
    risk: Tensor = error + ridge * features.diagonal().mean() * weight.square().sum()
    return risk


def _check_rows(features: Tensor, targets: Tensor) -> None:
    if features.dim() != 2 or targets.dim() != 2 or len(features) != len(targets):
        raise ValueError(
            "Expected features [n, d] and targets [n, k] of the same n, got shapes "
            f"{list(features.shape)} and {list(targets.shape)}."
        )


def _rounding(features: Tensor) -> float:
    """Singular value, relative to the largest one, below which directions of the features are rounding errors."""
    return features.shape[1] * torch.finfo(features.dtype).eps


def ridge_solution(features: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Solve ridge regression in float64: the d x d system if d <= n, else the n x n one.

    Args:
        features: Centered features, shape [n, d], differentiable.
        targets: Centered targets, shape [n, k].
        ridge: Ridge relative to the mean variance of the features.

    Returns:
        Weight of shape [d, k], in the dtype of the features.
    """
    dtype = features.dtype
    features, targets = features.double(), targets.double()
    number, width = features.shape
    tiny = torch.finfo(torch.float64).tiny  # constant features have the solution 0
    shrinkage = number * ridge * features.square().mean() + tiny
    if width <= number:
        system = features.T @ features
        system.diagonal().add_(shrinkage)
        weight = torch.linalg.solve(system, features.T @ targets)
    else:
        system = features @ features.T
        system.diagonal().add_(shrinkage)
        weight = features.T @ torch.linalg.solve(system, targets)
    solution: Tensor = weight.to(dtype)
    return solution
