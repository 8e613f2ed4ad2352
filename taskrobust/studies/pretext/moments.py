from dataclasses import dataclass

import torch
from torch import Tensor

from taskrobust.studies.pretext.least_squares import RIDGE


@dataclass(frozen=True)
class Moments:
    """Covariances of inputs x, pretext labels z and downstream labels y: of a sample, or of a whole population.

    They are all that a linear processor and least squares see, so that with those of a population one trains on
    infinitely much data.

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
        """Those of n samples, divided by n.

        Args:
            inputs: x, shape [n, d_x].
            labels: y, shape [n, d_y].
            pretext: z, shape [n, d_z].
        """
        x, y, z = (values - values.mean(0) for values in (inputs, labels, pretext))
        n = len(x)
        return Moments(x.T @ x / n, x.T @ y / n, x.T @ z / n, y.T @ y / n, y.T @ z / n, z.T @ z / n)

    def processed(self, matrix: Tensor) -> "Moments":
        """Those of the processed inputs ``x @ matrix.T``.

        Args:
            matrix: A linear processor, shape [d_f, d_x].
        """
        return Moments(matrix @ self.xx @ matrix.T, matrix @ self.xy, matrix @ self.xz, self.yy, self.yz, self.zz)

    def given_labels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances of x with x, x with z and z with z, given y: what the best linear prediction by y leaves."""
        of_x, of_z = (torch.linalg.solve(self.yy, part).T for part in (self.xy.T, self.yz))
        return self.xx - of_x @ self.xy.T, self.xz - of_x @ self.yz, self.zz - of_z @ self.yz

    def mse(self) -> float:
        """Mean squared error of the best linear prediction of y by x, mean over the d_y targets."""
        explained = self.xy.T @ torch.linalg.pinv(self.xx, hermitian=True) @ self.xy
        return float((self.yy - explained).trace() / len(self.yy))


def least_squares_risk_of_moments(
    features: Tensor, features_targets: Tensor, targets: Tensor, ridge: float = RIDGE
) -> Tensor:
    """What ``least_squares_risk`` is, from covariances alone, with the same exact gradient.

    Args:
        features: Covariance of the features, shape [d, d], differentiable.
        features_targets: Covariance of features and targets, shape [d, k], differentiable.
        targets: Covariance of the targets, shape [k, k].
        ridge: Relative to the mean variance of the features.
    """
    with torch.no_grad():
        system = features.clone()
        system.diagonal().add_(ridge * features.diagonal().mean() + torch.finfo(features.dtype).tiny)
        weight = torch.linalg.solve(system, features_targets)
    error = targets.trace() - 2 * (weight * features_targets).sum() + (weight * (features @ weight)).sum()
    risk: Tensor = error + ridge * features.diagonal().mean() * weight.square().sum()
    return risk
