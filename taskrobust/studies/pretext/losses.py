"""Losses of a processor f, which should predict the downstream label y but not the pretext label z."""

from collections.abc import Callable

import torch
from torch import Tensor

from taskrobust.studies.pretext.least_squares import (
    RIDGE,
    Moments,
    least_squares_risk,
    least_squares_risk_of_moments,
    ridge_solution,
)

Growth = Callable[[Tensor], Tensor]
"""A strictly increasing function of a distance, such as ``torch.square``."""


def processor_loss(
    extra: tuple[Tensor, Tensor], pretext: tuple[Tensor, Tensor], penalty: float, ridge: float = RIDGE
) -> Tensor:
    r"""Compute the training loss of a processor on n0 samples with y and n1 samples with z.

    .. math:: \mathcal L_{n_1, n_0}(f) = \frac{1}{n_0} \|Y - \widetilde W_2 f(X_{\text{extra}})\|^2
        - \frac{\lambda}{n_1} \|Z - \widetilde W_1 f(X_{\text{pre}})\|^2

    No gradient flows through the least squares solutions, and none is needed.

    Args:
        extra: Processed inputs [n0, d_f] and their downstream labels [n0, d_y].
        pretext: Processed inputs [n1, d_f] and their pretext labels [n1, d_z].
        penalty: :math:`\lambda`, in squared units of y per squared unit of z.
        ridge: Ridge of both solutions, relative to the mean variance of the features.

    References:
        Huang, Teng, He, Can Pretext-Based Self-Supervised Learning Be Boosted by Downstream Data?, BAAI 2021, slide
        "How to Obtain f? (Cont.)".
    """
    return least_squares_risk(*extra, ridge) - penalty * least_squares_risk(*pretext, ridge)


def linear_processor_loss(
    matrix: Tensor, extra: tuple[Tensor, Tensor], population: Moments, penalty: float, ridge: float = RIDGE
) -> Tensor:
    r"""Compute the loss of a linear processor with infinitely many pretext samples, :math:`\mathcal L_{\infty, n_0}`.

    Args:
        matrix: The processor, shape [d_f, d_x].
        extra: Unprocessed inputs [n0, d_x] and their downstream labels [n0, d_y].
        population: Covariances of the population.
        penalty: :math:`\lambda`.
        ridge: Ridge relative to the mean variance of the features.

    References:
        The slides of ``processor_loss``, "Inadequate Downstream Samples Provably Fails".
    """
    inputs, labels = extra
    processed = population.processed(matrix)
    pretext = least_squares_risk_of_moments(processed.xx, processed.xz, processed.zz, ridge)
    return least_squares_risk(inputs @ matrix.T, labels, ridge) - penalty * pretext


def population_loss(matrix: Tensor, population: Moments, penalty: float, ridge: float = RIDGE) -> Tensor:
    r"""Compute the loss of a linear processor on the population, :math:`\mathcal L(f; \mathcal P)`.

    Args:
        matrix: The processor, shape [d_f, d_x].
        population: Covariances of the population.
        penalty: :math:`\lambda`.
        ridge: Ridge relative to the mean variance of the features.

    References:
        The slides of ``processor_loss``, "How to Obtain f? (Cont.)".
    """
    processed = population.processed(matrix)
    downstream = least_squares_risk_of_moments(processed.xx, processed.xy, processed.yy, ridge)
    return downstream - penalty * least_squares_risk_of_moments(processed.xx, processed.xz, processed.zz, ridge)


def general_processor_loss(
    extra: tuple[Tensor, Tensor],
    pretext: tuple[Tensor, Tensor],
    penalty: float,
    growth: tuple[Growth, Growth] = (torch.square, torch.square),
    ridge: float = RIDGE,
) -> Tensor:
    r"""Compute the general loss of Theorem 3, with Euclidean distances.

    .. math:: \bar{\mathcal L}(f) = \frac{1}{n_0} \sum_i g_2(\|y_i - \widetilde W_2 f(x_i)\|)
        - \frac{\lambda}{n_1} \sum_j g_1(\|z_j - \widetilde W_1 f(x_j)\|)

    :math:`\widetilde W` is still the least squares solution, which only minimizes the sum if :math:`g` is the square.
    For other :math:`g`, the envelope theorem does not apply, and the gradient flows through the solution.

    Args:
        extra: Processed inputs [n0, d_f] and their downstream labels [n0, d_y].
        pretext: Processed inputs [n1, d_f] and their pretext labels [n1, d_z].
        penalty: :math:`\lambda`.
        growth: :math:`g_2` and :math:`g_1`, strictly increasing on [0, ∞).
        ridge: Ridge relative to the mean variance of the features.

    References:
        The slides of ``processor_loss``, "More General Loss".
    """
    downstream, upstream = (
        g(_distances(features, targets, ridge)).mean()
        for g, (features, targets) in zip(growth, (extra, pretext), strict=True)
    )
    loss: Tensor = downstream - penalty * upstream
    return loss


def pseudo_huber(distance: Tensor) -> Tensor:
    """Compute the pseudo-Huber function of distances, a growth for ``general_processor_loss``."""
    return (1 + distance.square()).sqrt() - 1


def _distances(features: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Distances between targets and their least squares predictions, shape [n], differentiable."""
    features, targets = features - features.mean(0), targets - targets.mean(0)
    residuals = targets - features @ ridge_solution(features, targets, ridge)
    smallest = torch.finfo(residuals.dtype).eps ** 2  # the root has no derivative at 0
    distances: Tensor = (residuals.square().sum(1) + smallest).sqrt()
    return distances
