import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest

from taskrobust.studies.theory.sample_complexity import (
    average_start,
    downstream_optima,
    minimax_start,
    outlier_tasks,
    samples_needed,
    simulated_samples_needed,
)

OPTIMA = outlier_tasks()
EPS = [0.25, 0.5, 1, 2, 2.5, 4, 6]
NEEDED = {"average": [40, 39, 37, 32, 30, 21, 5], "minimax": [39, 36, 28, 9, 0, 0, 0]}
STARTS = {"average": average_start(OPTIMA), "minimax": minimax_start(OPTIMA)}


def worst_way(start: str) -> torch.Tensor:
    """Difference between the farthest task and the initial parameters."""
    ways = OPTIMA - STARTS[start]
    return ways[ways.norm(dim=1).argmax()]


def test_outlier_tasks_have_the_given_distances() -> None:
    others = outlier_tasks(6, 20, spread=0.7, outlier=3.0)[:-1]
    outlier = outlier_tasks(6, 20, spread=0.7, outlier=3.0)[-1]
    between = torch.pdist(others)
    torch.testing.assert_close(others.norm(dim=1), torch.full((5,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(between, between[0].expand_as(between))
    torch.testing.assert_close((others - outlier).norm(dim=1), torch.full((5,), 9.49**0.5, dtype=torch.float64))


def test_minimax_start_is_equally_far_from_all_tasks() -> None:
    distances = (OPTIMA - STARTS["minimax"]).norm(dim=1)
    torch.testing.assert_close(distances, distances[0].expand_as(distances))
    assert distances[0].item() == pytest.approx((3.93**2 + 1.1**2) / (2 * 3.93), rel=1e-12)


@pytest.mark.parametrize("start", ["average", "minimax"])
def test_samples_needed_by_the_worst_task(start: str) -> None:
    risk = np.array(worst_way(start).square().sum().item() / 2)
    assert [int(samples_needed(risk, eps, 0.1, 40)) for eps in EPS] == NEEDED[start]


@pytest.mark.parametrize("start", ["average", "minimax"])
def test_simulation_agrees_with_the_closed_form(start: str) -> None:
    simulated = simulated_samples_needed(worst_way(start), EPS, 0.1, trials=2000, seed=0)
    assert np.abs(np.subtract(simulated, NEEDED[start])).max() <= 1


def test_gradient_descent_converges_to_the_simulated_error() -> None:
    """Compare descent on 12 samples in 40 dimensions with the projection onto their orthogonal complement."""
    samples = torch.randn(12, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    way = worst_way("average")
    left = way.clone()
    for _ in range(5000):
        left = left - 0.1 * samples.mT @ (samples @ left) / 12
    directions = torch.linalg.qr(samples.mT).Q
    torch.testing.assert_close(left.square().sum(), way.square().sum() - (way @ directions).square().sum())


def test_remaining_error_is_beta_distributed() -> None:
    samples = torch.randn(4000, 5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    way = torch.zeros(12, dtype=torch.float64)
    way[0] = 1
    left = 1 - (way @ torch.linalg.qr(samples.mT).Q).square().sum(1)
    assert kstest(left.numpy(), beta(7 / 2, 5 / 2).cdf).pvalue > 0.01


def test_samples_needed_range_from_zero_to_the_dimension() -> None:
    needed = samples_needed(np.array([0.0, 0.5, 0.50001, 1e9]), 0.5, 0.1, 7)
    assert needed.tolist() == [0, 0, 1, 7]


@pytest.mark.parametrize(
    ("concentration", "average", "minimax"), [(0.25, 2.7, 26.5), (1.0, 0.4, 24.5), (1e-3, 19.2, 36.0)]
)
def test_minimax_needs_more_samples_on_average(concentration: float, average: float, minimax: float) -> None:
    downstream = downstream_optima(OPTIMA, 5000, seed=0, concentration=concentration)
    means = {
        name: samples_needed(((downstream - start).square().sum(1) / 2).numpy(), 0.5, 0.1, 40).mean()
        for name, start in STARTS.items()
    }
    assert means == pytest.approx({"average": average, "minimax": minimax}, abs=0.6)


def test_default_concentration_is_a_quarter() -> None:
    torch.testing.assert_close(downstream_optima(OPTIMA, 50, 0), downstream_optima(OPTIMA, 50, 0, concentration=0.25))


@pytest.mark.parametrize("num_tasks", [2, 50])
def test_too_few_or_too_many_tasks_raise(num_tasks: int) -> None:
    message = rf"^Expected from 3 to 40 tasks for 40 parameters, got {num_tasks}\.$"
    with pytest.raises(ValueError, match=message):
        outlier_tasks(num_tasks, 40)


@pytest.mark.parametrize("delta", [0.0, 2.0])
def test_delta_out_of_range_raises(delta: float) -> None:
    with pytest.raises(ValueError, match=rf"^Expected a delta between 0 and 1, got {delta}\.$"):
        samples_needed(np.array(1.0), 0.5, delta, 40)
