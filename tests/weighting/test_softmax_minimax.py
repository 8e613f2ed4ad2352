import math

import numpy as np
import pytest
import torch
from torch import Tensor

from taskrobust import MultiTaskLoss, SoftmaxMinimax, TaskLosses
from taskrobust.weighting import Linear

ALPHAS = [0.125, 1.0, 16.0]  # exact in float32
ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("alpha", "risks", "expected"),
    [
        (0.0, [5.0, 1.0, 2.0], [1 / 3, 1 / 3, 1 / 3]),
        (1.0, [0.0, math.log(2), math.log(5)], [1 / 8, 2 / 8, 5 / 8]),
        (2.0, [0.0, math.log(2), math.log(5)], [1 / 30, 4 / 30, 25 / 30]),
        (1.0, [2.30, 0.05, -math.inf], [0.9047, 0.0953, 0.0]),  # a cross-entropy beside a squared error
        (1.0, [1000.0, 1000.0, 0.0], [0.5, 0.5, 0.0]),
    ],
)
def test_weights_are_the_softmax_of_the_risks(alpha: float, risks: list[float], expected: list[float]) -> None:
    weights = SoftmaxMinimax(3, alpha).weights(torch.tensor(risks), ONES)

    np.testing.assert_allclose(weights.numpy(), expected, atol=5e-5)


def heads(parameters: Tensor) -> Tensor:
    """Three tasks that pull two parameters apart."""
    x, y = parameters
    return torch.stack([(x - 1).square() + y, (x + y).exp() / 3, 2 - x * y])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_is_that_of_log_sum_exp(alpha: float) -> None:
    parameters = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    risks = heads(parameters)
    (expected,) = torch.autograd.grad((alpha * risks).logsumexp(0) / alpha, parameters, retain_graph=True)

    weights = SoftmaxMinimax(3, alpha).weights(risks.detach(), ONES)
    (gradient,) = torch.autograd.grad(weights @ risks, parameters, retain_graph=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)

    total = MultiTaskLoss(["a", "b", "c"], SoftmaxMinimax(3, alpha))(TaskLosses(risks, ONES))
    (gradient,) = torch.autograd.grad(total, parameters)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_is_that_of_torchjd_s_smooth_tchebycheff(alpha: float) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    parameters = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    risks = heads(parameters)

    (expected,) = torch.autograd.grad(scalarization.STCH(mu=1 / alpha, weights=ONES)(risks), risks)

    torch.testing.assert_close(SoftmaxMinimax(3, alpha).weights(risks.detach(), ONES), expected)


@pytest.mark.parametrize("weighting", [SoftmaxMinimax(3, hard=True), SoftmaxMinimax(3, alpha=math.inf)])
def test_the_hard_form_takes_the_worst_of_the_present_tasks(weighting: SoftmaxMinimax) -> None:
    risks = torch.tensor([1.0, 3.0, 2.0])

    assert weighting.weights(risks, ONES).tolist() == [0, 1, 0]
    assert weighting.weights(risks, torch.tensor([1.0, 0.0, 1.0])).tolist() == [0, 0, 1]
    assert weighting.weights(torch.tensor([3.0, 3.0, 2.0]), ONES).tolist() == [0.5, 0.5, 0]


def test_a_large_alpha_approaches_the_hard_form() -> None:
    risks = torch.tensor([1.0, 3.0, 2.9])

    torch.testing.assert_close(SoftmaxMinimax(3, 1e4).weights(risks, ONES), torch.tensor([0.0, 1.0, 0.0]))


def test_alpha_follows_its_schedule() -> None:
    weighting = SoftmaxMinimax(2, Linear(0, 2, steps=4))
    risks = torch.tensor([1.0, 0.0])
    for alpha in (0, 0.5, 1, 1.5, 2, 2):
        expected = math.exp(alpha) / (math.exp(alpha) + 1)
        assert weighting.weights(risks, torch.ones(2))[0].item() == pytest.approx(expected)
        weighting.update(risks, torch.ones(2))


def test_the_weighted_risk_misses_the_worst_by_less_than_log_t_over_alpha() -> None:
    generator = torch.Generator().manual_seed(0)
    for alpha in ALPHAS:
        for _ in range(100):
            risks = torch.randn(3, generator=generator)
            gap = risks.max() - SoftmaxMinimax(3, alpha).weights(risks, ONES) @ risks
            assert -1e-6 <= gap <= math.log(3) / alpha


@pytest.mark.parametrize("alpha", [-1.0, math.nan])
def test_an_alpha_that_is_negative_or_nan_is_an_error(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"^Expected alpha >= 0, got {alpha}\.$"):
        SoftmaxMinimax(3, alpha)
