from statistics import median

import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from torch import Tensor

from taskrobust.studies.pretext import processor as processor_module
from taskrobust.studies.pretext.criteria import population_uncorrelatedness
from taskrobust.studies.pretext.generators import GaussianData
from taskrobust.studies.pretext.least_squares import Moments
from taskrobust.studies.pretext.losses import processor_loss
from taskrobust.studies.pretext.networks import linear_network, mlp_network
from taskrobust.studies.pretext.processor import Pairs, Processor, optimal_linear_processor
from taskrobust.studies.pretext.synthetic import CURVES, PRETEXT_SAMPLES, Setting, measure, train_linear


def population_mse(setting: Setting, seeds: int = 1) -> float:
    """Median error of linear processors with infinitely many labels."""
    errors = []
    for seed in range(seeds):
        data = setting.data()
        extra, population = data.sample(setting.extra, seed=1000 + seed), data.moments()
        processor = train_linear(setting, data, (extra.inputs, extra.labels), seed).processor
        errors.append(population.processed(processor.matrix()).mse())
    return median(errors)


@pytest.mark.parametrize("penalty", [0.1, 0.3, 0.9])
def test_optimal_processor_satisfies_both_conditions(penalty: float) -> None:
    """Theorem 1."""
    data = GaussianData()
    matrix = optimal_linear_processor(data.moments(), 12, penalty)
    assert population_uncorrelatedness(matrix, data.moments()) < 1e-10
    assert data.moments().processed(matrix).mse() - data.bayes_mse < 1e-6


def test_optimal_processor_loses_y_beyond_the_critical_penalty() -> None:
    data = GaussianData(label_strength=0.5)
    assert data.critical_penalty == 4
    errors = [
        data.moments().processed(optimal_linear_processor(data.moments(), 12, penalty)).mse() for penalty in (3.9, 4.1)
    ]
    assert errors == pytest.approx([0.5, 1.0])


def test_training_on_the_population_finds_the_optimal_processor() -> None:
    data = GaussianData(nuisance=4, free=10, pretext=8)
    many = data.sample(20_000, seed=0)
    processor = Processor(linear_network(16, 4), steps=300).fit((many.inputs, many.labels), data.moments())
    assert data.moments().processed(processor.matrix()).mse() == pytest.approx(0.5, abs=0.01)
    assert population_uncorrelatedness(processor.matrix(), data.moments()) < 0.01
    assert processor.score(many.inputs, many.labels) == pytest.approx(0.5, abs=0.02)


def test_moments_of_a_sample_agree_with_the_population() -> None:
    data = GaussianData(nuisance=3, free=4, pretext=6)
    x, z, y = data.sample(200_000, seed=0)
    sample, population = Moments.of(x, y, z), data.moments()
    for name in ("xx", "xy", "xz", "yy", "yz", "zz"):
        torch.testing.assert_close(getattr(sample, name), getattr(population, name), atol=0.05, rtol=0)


def test_features_are_whitened() -> None:
    x, z, y = GaussianData(nuisance=2, free=4, pretext=4).sample(500, seed=0)
    processor = Processor(mlp_network(8, [16], 3), steps=5, lr=0.01).fit((x[:100], y[:100]), (x, z))
    torch.testing.assert_close(torch.cov(processor.transform(x).T, correction=0), torch.eye(3, dtype=torch.float64))


def test_processor_trains_on_batches_of_several_pretext_tasks() -> None:
    x, z, y = GaussianData(nuisance=2, free=4, pretext=4).sample(500, seed=0)
    processor = Processor(mlp_network(8, [16], 3), steps=100, lr=0.01, batch_size=100)
    processor.fit((x, y), [(x, z[:, :2]), (x, z[:, 2:])])
    assert processor.score(x, y) > 0.3


def test_each_step_uses_all_extra_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise n0 would be the batch size."""
    x, z, y = GaussianData(nuisance=2, free=4, pretext=4).sample(200, seed=0)
    sizes = []

    def loss(extra: Pairs, pretext: Pairs, *settings: float) -> Tensor:
        sizes.append((len(extra[0]), len(pretext[0])))
        assert torch.equal(extra[1], y)
        return processor_loss(extra, pretext, *settings)

    monkeypatch.setattr(processor_module, "processor_loss", loss)
    Processor(mlp_network(8, [16], 3), steps=2, batch_size=50).fit((x, y), (x, z))
    assert sizes == [(200, 50), (200, 50)]


def test_same_seed_yields_the_same_processor() -> None:
    x, z, y = GaussianData(nuisance=2, free=4, pretext=4).sample(200, seed=0)
    first, second = (
        Processor(mlp_network(8, [16], 3), steps=5, batch_size=50).fit((x, y), (x, z)).transform(x) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_covariances_require_a_linear_network() -> None:
    data = GaussianData()
    x, _, y = data.sample(50, seed=0)
    with pytest.raises(ValueError, match=r"one nn.Linear without bias .* got Sequential"):
        Processor(mlp_network(52, [8], 4)).fit((x, y), data.moments())


def test_covariances_with_a_batch_size_raise() -> None:
    data = GaussianData()
    x, _, y = data.sample(50, seed=0)
    with pytest.raises(ValueError, match=r"batch_size=None for the covariances of a population, .* got 10"):
        Processor(linear_network(52, 12), batch_size=10).fit((x, y), data.moments())


def test_inputs_of_another_dtype_raise() -> None:
    x, z, y = GaussianData().sample(50, seed=0)
    processor = Processor(mlp_network(52, [8], 4), steps=1)
    with pytest.raises(ValueError, match=r"dtype of the network, torch.float64, got torch.float32"):
        processor.fit((x, y), (x.float(), z))
    with pytest.raises(ValueError, match=r"dtype of the network, torch.float64, got torch.float32"):
        processor.fit((x, y), (x, z)).transform(x.float())


def test_unfitted_processor_raises() -> None:
    processor = Processor(linear_network(52, 4))
    with pytest.raises(NotFittedError, match="call fit first"):
        processor.transform(torch.zeros(1, 52, dtype=torch.float64))
    with pytest.raises(NotFittedError, match="call fit first"):
        processor.matrix()


def test_covariance_of_too_few_samples_raises() -> None:
    x, z, y = GaussianData().sample(30, seed=1)
    with pytest.raises(ValueError, match=r"of full rank, 52, got 29"):
        optimal_linear_processor(Moments.of(x, y, z), 4, penalty=0.3)


def test_baseline_of_a_network_uses_the_same_pretext_samples() -> None:
    setting = Setting(hidden=8)
    data = setting.data()
    held_out, sample = data.sample(20_000, seed=9000), data.sample(PRETEXT_SAMPLES, seed=2000)
    known = LinearRegression().fit(sample.inputs.numpy(), sample.pretext.numpy())
    errors = []
    for draw in range(20):
        labeled = data.sample(40, seed=3000 + draw)
        features = known.predict(labeled.inputs.numpy())
        strength = 1e-3 * 40 * (features - features.mean(0)).var()
        probe = Ridge(alpha=strength).fit(features, labeled.labels.numpy())
        predictions = torch.from_numpy(probe.predict(known.predict(held_out.inputs.numpy())))
        errors.append(float((predictions - held_out.labels).square().mean()))
    assert measure(setting, seeds=1).plain == pytest.approx(median(errors), rel=1e-6)


def test_too_few_pretext_dimensions_raise() -> None:
    with pytest.raises(ValueError, match=r"labels \+ nuisance = 12 pretext dimensions, got 11"):
        GaussianData(pretext=11)


def test_few_extra_samples_lose_y_and_many_preserve_it() -> None:
    assert population_mse(Setting(extra=20)) >= 0.95
    assert population_mse(Setting(extra=2000)) <= 0.56


def test_a_large_penalty_loses_y() -> None:
    assert population_mse(Setting(penalty=0.1)) <= 0.60
    assert population_mse(Setting(penalty=3)) >= 0.95


@pytest.mark.slow
def test_many_features_lose_y() -> None:
    assert population_mse(CURVES["d_f"][4]) <= 0.60
    assert population_mse(CURVES["d_f"][128]) >= 0.95


@pytest.mark.slow
def test_a_wide_network_loses_y() -> None:
    """Theorem 4."""
    assert measure(CURVES["hidden"][8], seeds=1).processed <= 0.62
    assert measure(CURVES["hidden"][128], seeds=1).processed >= 0.85


@pytest.mark.slow
def test_errors_decrease_with_n0_and_pooling_the_labels_is_better() -> None:
    errors = [measure(setting) for value, setting in CURVES["n0"].items() if value in (20, 60, 120, 500, 2000)]
    processed = [error.processed for error in errors]
    assert processed == sorted(processed, reverse=True)
    assert all(error.pooled < error.boosted for error in errors)
    assert errors[0].boosted > errors[0].plain > errors[-1].boosted
