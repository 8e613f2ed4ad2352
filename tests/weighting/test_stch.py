import re
from typing import Any

import numpy as np
import pytest
import torch

from taskrobust import STCH, SoftmaxMinimax

RISKS = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
ONES = torch.ones(3)


def test_weights_are_the_gradient_of_the_smooth_tchebycheff_function() -> None:
    preferences, ideal, mu = np.array([0.5, 1.0, 2.0]), np.array([0.1, 0.2, 0.3]), 0.5

    def smooth_maximum(risks: np.ndarray) -> float:
        return mu * np.log(np.exp(preferences * (risks - ideal) / mu).sum())

    weights = STCH(mu, preferences.tolist(), ideal.tolist()).setup("abc").weights(RISKS, ONES)

    steps = 1e-6 * np.eye(3)
    gradient = [(smooth_maximum(RISKS.numpy() + h) - smooth_maximum(RISKS.numpy() - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(weights.numpy(), gradient, rtol=1e-6)


@pytest.mark.parametrize("mu", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("given", [False, True])
def test_weights_agree_with_torchjd(mu: float, given: bool) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    preferences = torch.tensor([0.5, 0.3, 0.2]) if given else None
    ideal = torch.tensor([0.1, 0.2, 0.3]) if given else None
    risks = RISKS.clone().requires_grad_()

    (gradient,) = torch.autograd.grad(scalarization.STCH(mu, preferences, ideal)(risks), risks)

    ours = STCH(mu, *(None if value is None else value.tolist() for value in (preferences, ideal))).setup("abc")
    torch.testing.assert_close(ours.weights(RISKS, ONES), gradient, rtol=1e-6, atol=1e-9)


def test_equal_preferences_result_in_softmax_minimax() -> None:
    share = 3 * STCH(mu=0.2).setup("abc").weights(RISKS.float(), ONES)

    torch.testing.assert_close(
        share, SoftmaxMinimax(alpha=1 / (3 * 0.2), relative=False).setup("abc").weights(RISKS.float(), ONES)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mu": 0.0}, "Expected mu > 0, got 0.0."),
        ({"preferences": [1.0, 0.0]}, "Expected positive preferences, got [1.0, 0.0]."),
        (
            {"preferences": [1.0]},
            "Expected one value per task of ['a', 'b'] in STCH(preferences=...), got [1.0].",
        ),
        ({"ideal": [1.0]}, "Expected one value per task of ['a', 'b'] in STCH(ideal=...), got [1.0]."),
    ],
)
def test_invalid_arguments_raise(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        STCH(**arguments).setup("ab")


def test_small_mu_is_finite() -> None:
    weights = STCH(mu=1e-30).setup("ab").weights(torch.tensor([1e37, 1.0]), torch.ones(2))

    assert weights.tolist() == [0.5, 0]
