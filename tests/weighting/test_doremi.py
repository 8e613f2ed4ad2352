import numpy as np
import pytest
import torch

from taskrobust import DoReMi, FixedReference, MultiTaskLoss, RiskEstimator, TaskLosses

EXCESS = np.array([[0.5, 0.0, 1.0], [0.1, 2.0, 0.3], [1.0, 0.2, 0.4]])


def test_weights_are_those_of_algorithm_1_and_average_their_mean() -> None:
    weighting = DoReMi(step_size=0.7, floor=0.1).setup("abc")
    q, every = np.full(3, 1 / 3), []
    for excess in EXCESS:
        q = q * np.exp(0.7 * excess)
        q = 0.9 * q / q.sum() + 0.1 / 3
        every.append(q)
        risks = torch.tensor(excess).float()
        np.testing.assert_allclose(weighting.weights(risks, torch.ones(3)).numpy(), q, rtol=1e-5)
        weighting.update(risks, torch.ones(3))
        np.testing.assert_allclose(weighting.average.numpy(), np.mean(every, axis=0), rtol=1e-5)


def test_present_tasks_share_the_weight_they_had_and_an_absent_one_keeps_its_own() -> None:
    weighting = DoReMi(step_size=1.0, floor=0.0).setup("abc")
    weighting.update(torch.tensor([1.0, 0.0, 0.0]), torch.ones(3))
    before = weighting.log_weights.exp()
    weighting.update(torch.tensor([3.0, 9.0, 0.0]), torch.tensor([1.0, 0.0, 1.0]))

    q = before[[0, 2]].double().numpy() * np.exp([3.0, 0.0])
    expected = q / q.sum() * before[[0, 2]].sum().item()
    np.testing.assert_allclose(weighting.log_weights.exp()[[0, 2]].numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(weighting.log_weights.exp()[1], before[1])


def test_the_floor_is_kept_whatever_the_excess() -> None:
    weighting = DoReMi(step_size=1.0, floor=0.03).setup("abc")
    for _ in range(200):
        weighting.update(torch.tensor([500.0, 0.0, 0.0]), torch.ones(3))

    assert weighting.log_weights.exp().tolist() == pytest.approx([0.98, 0.01, 0.01], rel=1e-4)
    assert weighting.average.isfinite().all()


def test_excess_comes_from_the_reference() -> None:
    risk = RiskEstimator(reference=FixedReference([1.0, 4.0]))
    criterion = MultiTaskLoss(["a", "b"], DoReMi(step_size=1.0, floor=0.0), risk=risk)

    criterion(TaskLosses(torch.tensor([2.0, 4.5]), torch.ones(2)))

    assert criterion.last.weight_vector.tolist() == pytest.approx(np.exp([1, 0.5]) / np.exp([1, 0.5]).sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size": -1.0}, r"^Expected step_size >= 0, got -1\.0\.$"),
        ({"floor": 1.5}, r"^Expected floor in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DoReMi(**arguments)
