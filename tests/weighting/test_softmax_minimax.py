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
        (1.0, [2.30, 0.05, -math.inf], [0.9047, 0.0953, 0.0]),  # a cross-entropy and a squared error
        (1.0, [1000.0, 1000.0, 0.0], [0.5, 0.5, 0.0]),
    ],
)
def test_weights_are_the_softmax_of_the_risks(alpha: float, risks: list[float], expected: list[float]) -> None:
    weights = SoftmaxMinimax(alpha, relative=False).setup("abc").weights(torch.tensor(risks), ONES)

    np.testing.assert_allclose(weights.numpy(), expected, atol=5e-5)


def heads(parameters: Tensor) -> Tensor:
    """Three tasks with conflicting gradients of two parameters."""
    x, y = parameters
    return torch.stack([(x - 1).square() + y, (x + y).exp() / 3, 2 - x * y])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_agrees_with_log_sum_exp(alpha: float) -> None:
    parameters = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    risks = heads(parameters)
    (expected,) = torch.autograd.grad((alpha * risks).logsumexp(0) / alpha, parameters, retain_graph=True)

    weights = SoftmaxMinimax(alpha, relative=False).setup("abc").weights(risks.detach(), ONES)
    (gradient,) = torch.autograd.grad(weights @ risks, parameters, retain_graph=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)

    total = MultiTaskLoss(["a", "b", "c"], SoftmaxMinimax(alpha, relative=False))(TaskLosses(risks, ONES))
    (gradient,) = torch.autograd.grad(total, parameters)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_agrees_with_smooth_tchebycheff_of_torchjd(alpha: float) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    parameters = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    risks = heads(parameters)

    (expected,) = torch.autograd.grad(scalarization.STCH(mu=1 / alpha, weights=ONES)(risks), risks)

    torch.testing.assert_close(
        SoftmaxMinimax(alpha, relative=False).setup("abc").weights(risks.detach(), ONES), expected
    )


@pytest.mark.parametrize(
    "weighting", [SoftmaxMinimax(hard=True).setup("abc"), SoftmaxMinimax(alpha=math.inf).setup("abc")]
)
def test_hard_form_selects_the_worst_present_task(weighting: SoftmaxMinimax) -> None:
    risks = torch.tensor([1.0, 3.0, 2.0])

    assert weighting.weights(risks, ONES).tolist() == [0, 1, 0]
    assert weighting.weights(risks, torch.tensor([1.0, 0.0, 1.0])).tolist() == [0, 0, 1]
    assert weighting.weights(torch.tensor([3.0, 3.0, 2.0]), ONES).tolist() == [0.5, 0.5, 0]


def test_large_alpha_approaches_the_hard_form() -> None:
    risks = torch.tensor([1.0, 3.0, 2.9])

    torch.testing.assert_close(
        SoftmaxMinimax(1e4, relative=False).setup("abc").weights(risks, ONES), torch.tensor([0.0, 1.0, 0.0])
    )


def test_alpha_follows_its_schedule() -> None:
    weighting = SoftmaxMinimax(Linear(0, 2, steps=4), relative=False).setup("ab")
    risks = torch.tensor([1.0, 0.0])
    for alpha in (0, 0.5, 1, 1.5, 2, 2):
        expected = math.exp(alpha) / (math.exp(alpha) + 1)
        assert weighting.weights(risks, torch.ones(2))[0].item() == pytest.approx(expected)
        weighting.update(risks, torch.ones(2))


def test_weighted_risk_is_less_than_log_t_over_alpha_below_the_worst() -> None:
    generator = torch.Generator().manual_seed(0)
    for alpha in ALPHAS:
        for _ in range(100):
            risks = torch.randn(3, generator=generator)
            gap = risks.max() - SoftmaxMinimax(alpha, relative=False).setup("abc").weights(risks, ONES) @ risks
            assert -1e-6 <= gap <= math.log(3) / alpha


@pytest.mark.parametrize("alpha", [-1.0, math.nan])
def test_negative_or_nan_alpha_raises(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"^Expected alpha >= 0, got {alpha}\.$"):
        SoftmaxMinimax(alpha, relative=False).setup("abc")


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_relative_weights_are_independent_of_the_unit_of_the_risks(scale: float) -> None:
    weighting = SoftmaxMinimax(alpha=2.0).setup("abc")
    risks = torch.tensor([1.0, 3.0, 2.0])

    weights = weighting.weights(scale * risks, ONES)

    np.testing.assert_allclose(weights.numpy(), np.exp(risks.numpy()) / np.exp(risks.numpy()).sum(), rtol=1e-5)


def test_relative_weights_use_the_mean_of_the_present_tasks() -> None:
    weighting = SoftmaxMinimax(alpha=2.0).setup("abc")

    weights = weighting.weights(torch.tensor([1.0, 3.0, torch.nan]), torch.tensor([5.0, 5.0, 0.0]))

    np.testing.assert_allclose(weights.numpy(), [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2)), 0], rtol=1e-6)


def test_zero_risks_have_equal_weights() -> None:
    assert SoftmaxMinimax().setup("ab").weights(torch.zeros(2), torch.ones(2)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("relative", [False, True])
def test_large_alpha_on_large_risks_is_finite(relative: bool) -> None:
    weights = SoftmaxMinimax(alpha=100.0, relative=relative).setup("ab").weights(torch.tensor([1e37, 1.0]), ONES[:2])

    assert weights.tolist() == [1, 0]
