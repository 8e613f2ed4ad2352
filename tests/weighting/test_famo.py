import numpy as np
import pytest
import torch

from taskrobust import FAMO, MultiTaskLoss

ONES = torch.ones(3)
RISKS = [[2.0, 1.0, 0.5], [1.5, 1.1, 0.4], [1.2, 1.0, 0.45], [1.1, 0.7, 0.3]]


def test_weights_are_the_shares_divided_by_the_risks() -> None:
    weighting = FAMO().setup("abc")
    weighting.logits.copy_(torch.tensor([0.0, 0.5, -1.0]))

    shares = np.exp([0.0, 0.5, -1.0]) / np.exp([0.0, 0.5, -1.0]).sum() / np.array(RISKS[0])
    np.testing.assert_allclose(
        weighting.weights(torch.tensor(RISKS[0]), ONES).numpy(), shares / shares.sum(), rtol=1e-6
    )


def test_first_steps_agree_with_the_paper() -> None:
    weighting = FAMO(lr=0.1, weight_decay=0.01).setup("abc")
    for risks in RISKS[:3]:
        weighting.update(torch.tensor(risks), ONES)

    logits, first, second = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in (1, 2):
        z = np.exp(logits) / np.exp(logits).sum()
        jacobian = np.diag(z) - np.outer(z, z)
        gradient = jacobian.T @ (np.log(RISKS[step - 1]) - np.log(RISKS[step])) + 0.01 * logits
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        logits -= 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(weighting.logits.numpy(), logits, rtol=1e-4)


def test_weights_agree_with_torchjd_for_the_same_risks() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    lower_bound = 0.1
    theirs = scalarization.FAMO(3, min_losses=torch.full((3,), lower_bound), lr=0.05)
    ours = FAMO(lr=0.05, lower_bound=lower_bound).setup("abc")
    for number, step in enumerate(RISKS):
        risks = torch.tensor(step, requires_grad=True)
        if number > 0:
            theirs.update(risks)
        (gradient,) = torch.autograd.grad(theirs(risks), risks)
        ours.update(risks.detach(), ONES)
        torch.testing.assert_close(ours.weights(risks.detach(), ONES), gradient, rtol=1e-5, atol=1e-6)


def test_task_whose_risk_decreases_more_slowly_gains_weight() -> None:
    weighting = FAMO().setup("ab")
    before = weighting.weights(torch.ones(2), torch.ones(2))
    for step in range(10):
        weighting.update(torch.tensor([1.0, 0.9**step]), torch.ones(2))

    assert weighting.weights(torch.ones(2), torch.ones(2))[0] > before[0]


def test_absent_task_is_compared_with_its_last_risk() -> None:
    through, beside = FAMO().setup("ab"), FAMO().setup("ab")
    for weighting, counts in ((through, torch.ones(2)), (beside, torch.tensor([1.0, 0.0]))):
        weighting.update(torch.tensor([1.0, 1.0]), torch.ones(2))
        weighting.update(torch.tensor([1.0, 7.0]), counts)
    assert beside.log_risks[1] == 0
    assert torch.equal(beside.log_risks[:1], through.log_risks[:1])
    assert beside.adam.steps.tolist() == [1, 0]


def test_each_task_can_have_its_lower_bound() -> None:
    weighting = FAMO(lower_bound=[1.0, 0.0, 0.25]).setup("abc")
    shares = 1 / (np.array(RISKS[0]) - [1.0, 0.0, 0.25])
    weights = weighting.weights(torch.tensor(RISKS[0]), ONES).numpy()
    np.testing.assert_allclose(weights, shares / shares.sum(), rtol=1e-6)

    criterion = MultiTaskLoss(["a", "b"], FAMO(lower_bound=[1.0, 0.0]))
    with pytest.raises(ValueError, match=r"^Expected losses of 1 or more, which FAMO needs, got others for \['a'\]\."):
        criterion(torch.tensor([0.5, 0.5]))


def test_another_number_of_lower_bounds_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^Expected one value per task of .* in FAMO\(lower_bound=...\), got \[1.0\]"):
        FAMO(lower_bound=[1.0]).setup(["a", "b"])
