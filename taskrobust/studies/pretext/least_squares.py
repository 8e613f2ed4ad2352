from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-6
"""Ridge of the losses of a processor, relative to the mean variance of the features."""


@dataclass(frozen=True)
class LinearMap:
    """An affine map, from features [n, d] to predictions [n, k].

    Args:
        weight: Shape [d, k], float64.
        intercept: Shape [k], float64.
    """

    weight: Tensor
    intercept: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Predictions, shape [n, k], in the type of the features."""
        return (features.double() @ self.weight + self.intercept).to(features)


@torch.no_grad()
def fit_linear(features: Tensor, targets: Tensor, ridge: float = 0.0) -> LinearMap:
    r"""Least squares in closed form, the :math:`\widetilde W` of the slides.

    .. math:: \min_{W, b} \frac1n \|Y - F W - b\|^2 + \gamma s \|W\|^2, \qquad s = \text{mean variance of the features}

    Since the ridge is relative to :math:`s`, predictions do not change with the unit of the features. Without ridge it
    is the solution of least norm, in which directions do not count that are rounding error in the type of the features.

    Args:
        features: F, shape [n, d].
        targets: Y, shape [n, k].
        ridge: :math:`\gamma`, without unit.
    """
    _check_rows(features, targets)
    mean_features, mean_targets = features.double().mean(0), targets.double().mean(0)
    centerd, centerd_targets = features - mean_features, targets - mean_targets
    if ridge:
        weight = _solve(centerd, centerd_targets, ridge)
    else:
        weight = torch.linalg.pinv(centerd, rtol=_rounding(features)) @ centerd_targets
    return LinearMap(weight, mean_targets - mean_features @ weight)


def least_squares_risk(features: Tensor, targets: Tensor, ridge: float = RIDGE) -> Tensor:
    r"""The least squared error of a linear prediction of the targets, as a function of the features.

    .. math:: R(F) = \min_{W, b} \frac1n \|Y - F W - b\|^2 + \gamma s(F) \|W\|^2

    By the envelope theorem the gradient of the minimum is the partial one at the minimizer, so that :math:`W` is solved
    for without a graph and the gradient is still exact.

    Args:
        features: F, shape [n, d], differentiable.
        targets: Y, shape [n, k].
        ridge: :math:`\gamma > 0`, relative to the mean variance s of the features.

    Returns:
        The risk, summed over the k targets, shape [].
    """
    _check_rows(features, targets)
    centerd, centerd_targets = features - features.mean(0), targets - targets.mean(0)
    with torch.no_grad():
        weight = _solve(centerd, centerd_targets, ridge)
    penalty = ridge * centerd.square().mean() * weight.square().sum()
    return (centerd_targets - centerd @ weight).square().sum() / len(features) + penalty


def linear_mse(features: Tensor, targets: Tensor) -> float:
    """Unbiased mean squared error of the best linear prediction, from the samples that it is fitted to.

    The sum of squared residuals over n less the rank of the features and the constant: in the mean what the best
    linear predictor of the whole population has, where the error of the linear model is Gaussian.

    Args:
        features: Shape [n, d].
        targets: Shape [n, k].

    Returns:
        Mean over the k targets, in their squared unit.

    Raises:
        ValueError: If there are too few samples.
    """
    _check_rows(features, targets)
    centerd, wanted = (values - values.mean(0) for values in (features.double(), targets.double()))
    left, singular, _ = torch.linalg.svd(centerd, full_matrices=False)
    basis = left[:, singular > singular.max() * _rounding(features)]
    rank = basis.shape[1]
    freedom = len(features) - 1 - rank
    if freedom < 1:
        raise ValueError(f"Expected more than {rank + 1} samples for features of rank {rank}, got {len(features)}.")
    residuals = wanted - basis @ (basis.T @ wanted)
    return float(residuals.square().sum() / freedom / targets.shape[1])


def _check_rows(features: Tensor, targets: Tensor) -> None:
    if features.dim() != 2 or targets.dim() != 2 or len(features) != len(targets):
        raise ValueError(
            "Expected features [n, d] and targets [n, k] of the same n, got shapes "
            f"{list(features.shape)} and {list(targets.shape)}."
        )


def _rounding(features: Tensor) -> float:
    """The smallest singular value of features, relative to the largest, that is more than rounding error."""
    return features.shape[1] * torch.finfo(features.dtype).eps


def _solve(centerd: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """The ridge solution in float64: from the d × d system if d <= n, else from the n × n one."""
    features, wanted = centerd.double(), targets.double()
    number, width = features.shape
    tiny = torch.finfo(torch.float64).tiny  # features that are all constant have the solution 0
    shrinkage = number * ridge * features.square().mean() + tiny
    if width <= number:
        system = features.T @ features
        system.diagonal().add_(shrinkage)
        weight = torch.linalg.solve(system, features.T @ wanted)
    else:
        system = features @ features.T
        system.diagonal().add_(shrinkage)
        weight = features.T @ torch.linalg.solve(system, wanted)
    solution: Tensor = weight.to(centerd)
    return solution
