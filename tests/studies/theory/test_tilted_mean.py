import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from taskrobust.studies.theory import tilted_mean

RISKS = [0.3, 2.0, 1.9, -1.0]


def exact(risks: list[float], alpha: float) -> float:
    """Compute the tilted mean with fifty digits."""
    with localcontext() as context:
        context.prec = 50
        largest = max(map(Decimal, risks))
        total = sum((Decimal(alpha) * (Decimal(risk) - largest)).exp() for risk in risks)
        return float(largest + (total / len(risks)).ln() / Decimal(alpha))


@pytest.mark.parametrize("alpha", [1e-8, 1e-4, 0.1, 0.65, 0.7, 1.0, 10.0, 1e4])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_tilted_mean_is_accurate_for_each_alpha(alpha: float, dtype: torch.dtype, digits: float) -> None:
    risks = torch.tensor(RISKS, dtype=dtype)

    assert tilted_mean(risks, alpha).item() == pytest.approx(exact(risks.tolist(), alpha), rel=digits)


def test_tilted_mean_lies_between_the_mean_and_the_worst() -> None:
    risks = torch.tensor(RISKS)

    assert tilted_mean(risks, 0.0) == risks.mean()
    assert tilted_mean(risks, math.inf) == 2.0


@pytest.mark.parametrize("alpha", [1e-6, 0.1, 1.0, 50.0, 1e4])
def test_gradient_equals_the_softmax_weights(alpha: float) -> None:
    risks = torch.tensor(RISKS, dtype=torch.float64, requires_grad=True)

    (gradient,) = torch.autograd.grad(tilted_mean(risks, alpha), risks)

    torch.testing.assert_close(gradient, (alpha * risks).softmax(0).detach(), rtol=1e-9, atol=1e-12)


def test_gradient_equals_that_of_the_weighted_risk() -> None:
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.1, 1.0, 10.0):
        theta = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
        points = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        risks = (theta - points).square().sum(1)
        (expected,) = torch.autograd.grad(tilted_mean(risks, alpha), theta, retain_graph=True)
        weights = (alpha * risks.detach()).softmax(0)
        (gradient,) = torch.autograd.grad(weights @ risks, theta)
        assert ((gradient - expected).norm() / expected.norm()).item() <= 1e-12


def test_tilted_mean_is_the_best_mixture_minus_its_divergence_from_uniform() -> None:
    risks = np.array(RISKS)
    mixtures = np.random.default_rng(0).dirichlet(np.ones(4), 20000)
    divergences = (mixtures * np.log(4 * mixtures)).sum(1)
    value = tilted_mean(torch.from_numpy(risks), 2.0).item()

    assert value - 0.01 < (mixtures @ risks - divergences / 2).max() <= value


@pytest.mark.parametrize(("detached", "expected"), [(True, 0.0), (False, 2.7215)])
def test_attached_weights_ascend_on_the_easy_task(detached: bool, expected: float) -> None:
    """Two independent heads: without detaching, the coefficient of the easy task becomes negative."""
    heads = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    for _ in range(3000):
        risks = torch.tensor([4.0, 0.0]) + heads.square()
        weights = risks.softmax(0)
        (gradient,) = torch.autograd.grad((weights.detach() if detached else weights) @ risks, heads)
        heads = (heads - 0.1 * gradient).detach().requires_grad_()

    assert heads[1].square().item() == pytest.approx(expected, abs=1e-3)
