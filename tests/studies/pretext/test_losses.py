from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from taskrobust.studies.pretext.generators import GaussianData
from taskrobust.studies.pretext.least_squares import Moments, fit_linear, least_squares_risk
from taskrobust.studies.pretext.losses import (
    general_processor_loss,
    linear_processor_loss,
    population_loss,
    processor_loss,
    pseudo_huber,
)

GROWTHS = [torch.square, torch.abs, torch.log1p, pseudo_huber]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("number", [30, 8], ids=["primal", "dual"])
def test_ridge_agrees_with_scikit_learn(number: int) -> None:
    features, targets = gaussian(number, 12) * 3 + 1, gaussian(number, 2, seed=1)
    strength = float(0.1 * number * (features - features.mean(0)).square().mean())
    expected = Ridge(alpha=strength).fit(features.numpy(), targets.numpy())
    ours = fit_linear(features, targets, ridge=0.1)
    torch.testing.assert_close(ours.weight, torch.from_numpy(expected.coef_).T)
    torch.testing.assert_close(ours.intercept, torch.from_numpy(expected.intercept_))


@pytest.mark.parametrize("number", [30, 8], ids=["primal", "dual"])
def test_gradient_of_the_risk_equals_the_gradient_through_the_solution(number: int) -> None:
    features, targets = gaussian(number, 12).requires_grad_(), gaussian(number, 2, seed=1)

    def through_the_solution(features: Tensor) -> Tensor:
        centered, wanted = features - features.mean(0), targets - targets.mean(0)
        shrinkage = 0.1 * centered.square().mean()
        system = centered.T @ centered / number + shrinkage * torch.eye(12, dtype=torch.float64)
        weight = torch.linalg.solve(system, centered.T @ wanted / number)
        return (wanted - centered @ weight).square().sum() / number + shrinkage * weight.square().sum()

    ours, expected = least_squares_risk(features, targets, ridge=0.1), through_the_solution(features)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(risk, features)[0] for risk in (ours, expected)), rtol=1e-9, atol=1e-12
    )


def test_risk_is_independent_of_the_unit_of_the_features() -> None:
    features, targets = gaussian(40, 5), gaussian(40, 2, seed=1)
    risks = [least_squares_risk(scale * features + 3, targets, ridge=0.1) for scale in (1e-3, 1.0, 1e3)]
    torch.testing.assert_close(torch.stack(risks), risks[1].expand(3))


def test_constant_features_have_the_risk_of_a_constant() -> None:
    targets = gaussian(40, 2)
    features = torch.ones(40, 3, dtype=torch.float64, requires_grad=True)
    risk = least_squares_risk(features, targets)
    assert risk.item() == pytest.approx(float(targets.var(dim=0, unbiased=False).sum()))
    assert torch.autograd.grad(risk, features)[0].isfinite().all()


def test_mismatched_shapes_raise() -> None:
    with pytest.raises(ValueError, match=r"of the same n, got shapes \[4, 2\] and \[5, 1\]"):
        least_squares_risk(gaussian(4, 2), gaussian(5, 1))


def test_losses_of_a_large_sample_approach_those_of_the_population() -> None:
    data = GaussianData(labels=2, nuisance=3, free=5, pretext=6)
    population, matrix = data.moments(), gaussian(4, 10)
    x, z, y = data.sample(200_000, seed=0)
    expected = population_loss(matrix, population, penalty=0.3)
    features = x @ matrix.T
    assert processor_loss((features, y), (features, z), 0.3).item() == pytest.approx(expected.item(), abs=0.02)
    assert linear_processor_loss(matrix, (x, y), population, 0.3).item() == pytest.approx(expected.item(), abs=0.02)


def test_loss_from_moments_equals_the_loss_from_samples() -> None:
    x, z, y = GaussianData().sample(300, seed=0)
    matrix = gaussian(12, 52).requires_grad_()
    of_moments = population_loss(matrix, Moments.of(x, y, z), 0.3, ridge=0.05)
    of_samples = processor_loss((x @ matrix.T, y), (x @ matrix.T, z), 0.3, ridge=0.05)
    torch.testing.assert_close(of_moments, of_samples)
    torch.testing.assert_close(*(torch.autograd.grad(loss, matrix)[0] for loss in (of_moments, of_samples)))


def test_general_loss_with_squares_equals_the_loss() -> None:
    extra, pretext = (gaussian(20, 4), gaussian(20, 2, seed=1)), (gaussian(50, 4, seed=2), gaussian(50, 3, seed=3))
    general = general_processor_loss(extra, pretext, 0.3, ridge=1e-9)
    torch.testing.assert_close(general, processor_loss(extra, pretext, 0.3, ridge=1e-9), rtol=1e-6, atol=0)


@pytest.mark.parametrize("growth", GROWTHS, ids=lambda growth: growth.__name__)
@pytest.mark.parametrize("number", [20, 4], ids=["primal", "dual"])
def test_gradient_of_the_general_loss_is_exact(growth: Callable[[Tensor], Tensor], number: int) -> None:
    labels, pretext = gaussian(number, 2, seed=1), gaussian(30, 3, seed=2)

    def loss(of_extra: Tensor, of_pretext: Tensor) -> Tensor:
        return general_processor_loss((of_extra, labels), (of_pretext, pretext), 0.3, (growth, growth), ridge=0.1)

    inputs = (gaussian(number, 5).requires_grad_(), gaussian(30, 5, seed=3).requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


def witness(data: GaussianData, extra: int, seed: int, growth: Callable[[Tensor], Tensor] | None = None) -> float:
    """Loss of the blind processor minus that of the oracle, negative if the loss prefers the blind one."""
    x, _, y = data.sample(extra, seed)
    population = data.moments()
    losses = []
    for matrix in (data.blind(12), data.oracle(12)):
        if growth is None:
            losses.append(linear_processor_loss(matrix, (x, y), population, 0.3, ridge=1e-12).item())
        else:
            upstream = data.sample(20_000, seed=10_000)
            pairs = ((x @ matrix.T, y), (upstream.inputs @ matrix.T, upstream.pretext))
            losses.append(general_processor_loss(*pairs, 0.3, (growth, growth), ridge=1e-9).item())
    return losses[0] - losses[1]


@pytest.mark.parametrize("extra", [3, 6, 12])
def test_loss_prefers_the_blind_processor_up_to_d_f_samples(extra: int) -> None:
    """Theorem 2: by d_y ρ λ b² = 0.3, for any samples."""
    for seed in range(5):
        assert witness(GaussianData(), extra, seed) == pytest.approx(-0.3, abs=1e-3)


def test_loss_prefers_the_oracle_with_enough_samples() -> None:
    """n0* = d_f / (1 - λ b²) = 17.1. Twice as many suffice on average."""
    gaps = [witness(GaussianData(), 36, seed) for seed in range(200)]
    expected = 1 - 12 / 35 - 0.3  # the mean uses one degree of freedom
    assert sum(gaps) / len(gaps) == pytest.approx(expected, abs=0.05)
    assert sum(gaps) > 0


@pytest.mark.parametrize("growth", GROWTHS, ids=lambda growth: growth.__name__)
def test_other_losses_prefer_the_blind_processor(growth: Callable[[Tensor], Tensor]) -> None:
    """Theorem 3."""
    for seed in range(3):
        assert witness(GaussianData(), 12, seed, growth) < -0.001
