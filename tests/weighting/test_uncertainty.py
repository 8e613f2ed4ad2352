import re
from typing import Any

import numpy as np
import pytest
import torch

from taskrobust import MultiTaskLoss, TaskLosses, Uncertainty

RISKS = [2.0, 0.5, 4.0]
LOG_VARIANCES = [0.0, -1.0, 1.5]


def criterion_of(likelihood: Any, **options: Any) -> MultiTaskLoss:
    criterion = MultiTaskLoss(["a", "b", "c"], Uncertainty(likelihood), **options)
    with torch.no_grad():
        criterion.weighting.log_variance.copy_(torch.tensor(LOG_VARIANCES))
    return criterion


LIKELIHOODS = [
    ("regression", [0.5, 0.5, 0.5]),
    ("classification", [1.0, 1.0, 1.0]),
    (["classification", "regression", "regression"], [1.0, 0.5, 0.5]),
]


@pytest.mark.parametrize(("likelihood", "coefficients"), LIKELIHOODS)
def test_gradients_agree_with_the_total_of_kendall(likelihood: Any, coefficients: list[float]) -> None:
    criterion = criterion_of(likelihood, weight_sum="paper")
    sums = torch.tensor(RISKS, requires_grad=True)
    criterion(TaskLosses(sums, torch.ones(3))).backward()

    sigma = torch.tensor(LOG_VARIANCES).double().div(2).exp().requires_grad_()
    risks = torch.tensor(RISKS, dtype=torch.float64, requires_grad=True)
    ((torch.tensor(coefficients) / sigma**2 * risks).sum() + sigma.log().sum()).backward()

    torch.testing.assert_close(sums.grad, risks.grad, check_dtype=False)
    # d/ds = sigma / 2 d/dsigma, where s = 2 log sigma
    expected = sigma.grad * sigma.detach() / 2  # type: ignore[operator]
    torch.testing.assert_close(criterion.weighting.log_variance.grad, expected, check_dtype=False)


def test_gradient_agrees_with_torchjd_for_regressions() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    criterion = criterion_of("regression", weight_sum="paper")
    theirs = scalarization.UW(3)
    theirs.log_var.data.copy_(torch.tensor(LOG_VARIANCES))
    ours_at, theirs_at = (torch.tensor(RISKS, requires_grad=True) for _ in range(2))

    criterion(TaskLosses(ours_at, torch.ones(3))).backward()
    theirs(theirs_at).backward()

    torch.testing.assert_close(ours_at.grad, theirs_at.grad)
    torch.testing.assert_close(criterion.weighting.log_variance.grad, theirs.log_var.grad)


def test_value_of_the_total_is_the_sum_of_the_weighted_risks() -> None:
    criterion = criterion_of("classification")

    total = criterion(TaskLosses(torch.tensor(RISKS), torch.ones(3)))

    precisions = np.exp(-np.array(LOG_VARIANCES))
    assert total.item() == pytest.approx(precisions @ RISKS / precisions.sum())


def test_log_variance_of_an_absent_task_has_no_gradient() -> None:
    criterion = criterion_of("classification")

    criterion(TaskLosses(torch.tensor([2.0, 0.0, 4.0]), torch.tensor([1.0, 0.0, 1.0]))).backward()

    gradient = criterion.weighting.log_variance.grad
    assert gradient[1] == 0
    assert torch.all(gradient[[0, 2]] != 0)


@pytest.mark.parametrize(("likelihood", "coefficients"), LIKELIHOODS)
def test_constant_risks_are_learned_as_variances(likelihood: Any, coefficients: list[float]) -> None:
    criterion = MultiTaskLoss(["a", "b", "c"], Uncertainty(likelihood))
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        criterion(TaskLosses(torch.tensor(RISKS), torch.ones(3))).backward()
        optimizer.step()

    variances = 2 * np.array(coefficients) * RISKS  # where the derivative of c r exp(-s) + s / 2 is zero
    np.testing.assert_allclose(criterion.weighting.log_variance.detach().exp().numpy(), variances, rtol=1e-4)


def test_unknown_likelihood_raises() -> None:
    with pytest.raises(
        ValueError, match=r"^Expected 'regression' or 'classification' as likelihood, got 'gaussian'\.$"
    ):
        Uncertainty("gaussian")  # type: ignore[arg-type]


def test_wrong_number_of_likelihoods_raises_and_names_the_tasks() -> None:
    message = "Expected one likelihood per task of ['depth', 'semseg'], got ['regression']."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MultiTaskLoss(["depth", "semseg"], Uncertainty(["regression"]))
