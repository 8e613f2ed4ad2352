"""Estimators of the two conditions of a processor f: (C1) Cov[f, z | y] = 0, and (C2) f preserves what predicts y."""

from dataclasses import dataclass

import torch
from torch import Tensor

from taskrobust.studies.pretext.least_squares import Moments, fit_linear, linear_mse


@dataclass(frozen=True)
class ConditionalUncorrelatedness:
    """Correlation between features and pretext labels given the downstream label.

    Attributes:
        statistic: Sum of the squared partial canonical correlations, in [0, min(d_f, d_z)].
        debiased: The statistic minus its mean under (C1) for the given number of samples.
        p_value: Probability of a statistic at least this large under (C1) with Gaussian residuals.
    """

    statistic: float
    debiased: float
    p_value: float


def conditional_uncorrelatedness(features: Tensor, pretext: Tensor, labels: Tensor) -> ConditionalUncorrelatedness:
    r"""Estimate and test (C1), Cov[f(x), z | y] = 0.

    The part that y explains is subtracted from both sides: class means for classes, the linear prediction for numbers.
    Then

    .. math:: S = \sum_i \rho_i^2, \qquad S_{\text{debiased}} = S - \frac{d_f d_z}{\nu}, \qquad
        -\Big(\nu - \frac{d_f + d_z + 1}{2}\Big) \sum_i \log(1 - \rho_i^2) \sim \chi^2_{d_f d_z}

    with canonical correlations :math:`\rho_i` of the residuals and :math:`\nu` = n minus the number of classes, or
    minus 1 + d_y. Neither depends on the units of f and z. Dimensions that are constant given y are ignored.

    Args:
        features: f(x), shape [n, d_f].
        pretext: z, shape [n, d_z].
        labels: y, classes as integers of shape [n] or numbers of shape [n, d_y].

    Raises:
        ValueError: If there are too few samples for the number of dimensions.

    References:
        Criterion (C1) of Huang, Teng, He, Can Pretext-Based Self-Supervised Learning Be Boosted by Downstream Data?,
        BAAI 2021. Bartlett, Further Aspects of the Theory of Multiple Regression, 1938.
    """
    from scipy.stats import chi2

    explained, used = _explained_by(labels)
    bases = [_orthonormal(values - explained(values), like=values) for values in (features.double(), pretext.double())]
    d_f, d_z = (basis.shape[1] for basis in bases)
    freedom = len(features) - used
    if freedom <= d_f + d_z:
        raise ValueError(
            f"Expected more than {d_f + d_z + used} samples for {d_f} features, {d_z} pretext labels and labels of "
            f"{used} degrees of freedom, got {len(features)}."
        )
    if not d_f * d_z:
        return ConditionalUncorrelatedness(0.0, 0.0, 1.0)
    squares = torch.linalg.svdvals(bases[0].T @ bases[1]).square().clamp(max=1 - 1e-15)
    statistic = float(squares.sum())
    bartlett = -(freedom - (d_f + d_z + 1) / 2) * float(torch.log1p(-squares).sum())
    return ConditionalUncorrelatedness(
        statistic=statistic,
        debiased=statistic - d_f * d_z / freedom,
        p_value=float(chi2.sf(bartlett, d_f * d_z)),
    )


def information_loss(features: Tensor, labels: Tensor, reference_mse: float) -> float:
    r"""Estimate the violation of (C2): the excess error of a linear prediction of y from f(x).

    .. math:: \frac{1}{d_y} \mathbb E\|y - W^* f(x)\|^2 - \text{reference}

    Args:
        features: f(x), shape [n, d_f].
        labels: y, shape [n, d_y]. One-hot for classes.
        reference_mse: Mean squared error of the best prediction, averaged over the d_y targets: that of E[y | x] if
            known, ``linear_mse(inputs, labels)`` for linear processors, or that of another model.

    Raises:
        ValueError: If there are too few samples.

    References:
        Criterion (C2) of the slides of ``conditional_uncorrelatedness``.
    """
    return linear_mse(features, labels) - reference_mse


def epsilon_ci(features: Tensor, pretext: Tensor, labels: Tensor) -> float:
    r"""Estimate the deviation from conditional independence of features and pretext labels, in the unit of z.

    .. math:: \epsilon_{CI}^2 = \|\operatorname{Cov}[z, f \mid y] \, \Sigma_{ff}^{-1/2}\|_F^2

    minus the mean of this estimate for independent samples, clipped at 0.

    Args:
        features: f(x), shape [n, d_f].
        pretext: z, shape [n, d_z].
        labels: y, classes as integers of shape [n] or numbers of shape [n, d_y].

    References:
        Lee et al., Predicting What You Already Know Helps: Provable Self-Supervised Learning, 2020, Definition 4.1, for
        Gaussian variables.
    """
    explained, _ = _explained_by(labels)
    centered = (features - features.mean(0)).double()
    basis = _orthonormal(centered, like=centered)
    residual = pretext.double() - explained(pretext.double())
    # f - E[f | y] and z - E[z | y] have the covariance of f and z - E[z | y].
    by_chance = basis.shape[1] * residual.square().sum() / len(features)
    square = ((basis.T @ residual).square().sum() - by_chance) / len(features)
    return float(square.clamp(min=0).sqrt())


def population_uncorrelatedness(matrix: Tensor, population: Moments) -> float:
    """Compute the statistic of ``conditional_uncorrelatedness`` for a linear processor on a population: 0 under (C1).

    Args:
        matrix: The processor, shape [d_f, d_x].
        population: Covariances of the population.
    """
    ff, fz, zz = population.processed(matrix).given_labels()
    whitened = _inverse_root(ff) @ fz @ _inverse_root(zz)
    return float(whitened.square().sum())


def population_epsilon_ci(matrix: Tensor, population: Moments) -> float:
    """Compute the value that ``epsilon_ci`` estimates, for a linear processor on a Gaussian population.

    Args:
        matrix: The processor, shape [d_f, d_x].
        population: Covariances of the population.
    """
    processed = population.processed(matrix)
    _, fz, _ = processed.given_labels()
    return float(torch.linalg.matrix_norm(_inverse_root(processed.xx) @ fz))


def _explained_by(labels: Tensor) -> tuple["_Explained", int]:
    """Predictor from the labels, and its number of parameters per target."""
    if labels.dtype.is_floating_point:
        if labels.dim() != 2:
            raise ValueError(f"Expected numbers of shape [n, d_y] as labels, got shape {list(labels.shape)}.")
        design = labels.double()
        return _Explained(design), 1 + int(torch.linalg.matrix_rank(design - design.mean(0)))
    if labels.dim() != 1:
        raise ValueError(f"Expected classes of shape [n] as labels, got shape {list(labels.shape)}.")
    classes = torch.unique(labels)
    return _Explained((labels[:, None] == classes).double()), len(classes)


@dataclass(frozen=True)
class _Explained:
    design: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        return fit_linear(self.design, values)(self.design)


def _orthonormal(values: Tensor, like: Tensor) -> Tensor:
    """Orthonormal basis of the span of the columns, without rounding errors relative to the size of ``like``."""
    left, singular, _ = torch.linalg.svd(values, full_matrices=False)
    rounding = torch.linalg.matrix_norm(like - like.mean(0)) * max(values.shape) * torch.finfo(values.dtype).eps
    basis: Tensor = left[:, singular > rounding]
    return basis


def _inverse_root(covariance: Tensor) -> Tensor:
    """Inverse square root of a covariance, 0 in directions without variance."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values.max() * len(values) * 1e-12
    root: Tensor = (vectors[:, kept] / values[kept].sqrt()) @ vectors[:, kept].T
    return root
