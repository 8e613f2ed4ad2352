import numpy as np
import pytest
import torch

from taskrobust import DWA

EPOCHS = np.array([[[4.0, 2.0], [2.0, 2.0]], [[2.0, 3.0], [1.0, 1.0]], [[2.0, 0.5], [0.4, 0.5]]])  # [epoch, step, task]


def feed(weighting: DWA, risks: np.ndarray, counts: tuple[float, float] = (1, 1)) -> None:
    weighting.update(torch.tensor(risks).float(), torch.tensor(counts))


def weights(weighting: DWA) -> np.ndarray:
    return weighting.weights(torch.zeros(2), torch.ones(2)).numpy()


def expected(ratios: np.ndarray, temperature: float = 2.0) -> np.ndarray:
    return len(ratios) * np.exp(ratios / temperature) / np.exp(ratios / temperature).sum()


def test_weights_are_equal_in_the_first_two_periods() -> None:
    weighting = DWA(period=2).setup("ab")
    for step in EPOCHS[:2].reshape(-1, 2):
        np.testing.assert_allclose(weights(weighting), 1, rtol=1e-6)
        feed(weighting, step)


def test_weights_follow_the_ratios_of_the_last_two_periods() -> None:
    weighting = DWA(temperature=0.7, period=2).setup("ab")
    means = EPOCHS.mean(1)
    for epoch, steps in enumerate(EPOCHS):
        for step in steps:
            feed(weighting, step)
            if epoch == 2 and step is steps[0]:
                np.testing.assert_allclose(weights(weighting), expected(means[1] / means[0], 0.7), rtol=1e-6)
    np.testing.assert_allclose(weights(weighting), expected(means[2] / means[1], 0.7), rtol=1e-6)


def test_periods_can_be_epochs() -> None:
    in_epochs, in_steps = DWA(period=None).setup("ab"), DWA(period=2).setup("ab")
    for steps in EPOCHS:
        for step in steps:
            feed(in_epochs, step)
            feed(in_steps, step)
        in_epochs.end_epoch()
        in_steps.end_epoch()  # its periods are steps
        np.testing.assert_array_equal(weights(in_epochs), weights(in_steps))


def test_weights_agree_with_torchjd() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    theirs, ours = scalarization.DWA(temperature=1.5), DWA(temperature=1.5, period=2).setup("ab")
    for steps in EPOCHS:
        for step in steps:
            risks = torch.tensor(step).float().requires_grad_()
            (gradient,) = torch.autograd.grad(theirs(risks), risks)
            np.testing.assert_allclose(weights(ours), gradient.numpy(), rtol=1e-6)
            feed(ours, step)
        theirs.step()


def test_task_absent_for_a_period_keeps_its_mean() -> None:
    weighting = DWA(period=1).setup("ab")
    feed(weighting, np.array([4.0, 2.0]))
    feed(weighting, np.array([2.0, 9.0]), counts=(1, 0))

    np.testing.assert_allclose(weights(weighting), expected(np.array([2 / 4, 1.0])), rtol=1e-6)


def test_task_not_seen_in_two_periods_has_ratio_one() -> None:
    weighting = DWA(period=1).setup("ab")
    for verb_counts in (0, 0, 1):
        feed(weighting, np.array([1.0, 10.0]), counts=(1, verb_counts))

    np.testing.assert_allclose(weights(weighting), 1)


@pytest.mark.parametrize(("temperature", "period"), [(0.0, 10), (1.0, 0)])
def test_nonpositive_temperature_or_period_raises(temperature: float, period: int) -> None:
    message = rf"^Expected a positive temperature and period, got {temperature} and {period}\.$"
    with pytest.raises(ValueError, match=message):
        DWA(temperature, period).setup("ab")
