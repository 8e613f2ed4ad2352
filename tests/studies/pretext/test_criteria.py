import pytest
import torch
from scipy.stats import pearsonr
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

from taskrobust.studies.pretext.criteria import (
    conditional_uncorrelatedness,
    epsilon_ci,
    information_loss,
    population_epsilon_ci,
    population_uncorrelatedness,
)
from taskrobust.studies.pretext.generators import ClassImages, ClassMixture, GaussianData
from taskrobust.studies.pretext.least_squares import fit_linear, linear_mse
from taskrobust.studies.pretext.networks import capacity_lower_bound, linear_network, mlp_network
from taskrobust.studies.pretext.tasks import SplitHalf


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def residuals(values: Tensor, labels: Tensor) -> Tensor:
    model = LinearRegression().fit(labels.numpy(), values.numpy())
    return values - torch.from_numpy(model.predict(labels.numpy()))


def test_statistic_of_one_feature_is_the_squared_partial_correlation() -> None:
    y = gaussian(200, 1)
    f, z = y + gaussian(200, 1, seed=1), 2 * y + gaussian(200, 1, seed=2)
    expected = pearsonr(residuals(f, y)[:, 0].numpy(), residuals(z, y)[:, 0].numpy())
    result = conditional_uncorrelatedness(f, z, y)
    assert result.statistic == pytest.approx(expected.statistic**2, rel=1e-9)
    assert result.p_value == pytest.approx(expected.pvalue, abs=0.01)


def test_statistic_is_the_sum_of_squared_canonical_correlations_of_residuals() -> None:
    y = gaussian(300, 2)
    f = y @ gaussian(2, 3, seed=1) + gaussian(300, 3, seed=2)
    z = f @ gaussian(3, 4, seed=3) + 3 * gaussian(300, 4, seed=4)
    of_f, of_z = residuals(f, y), residuals(z, y)
    scores = CCA(n_components=3, max_iter=20_000, tol=1e-10, scale=False).fit_transform(of_f.numpy(), of_z.numpy())
    expected = sum(pearsonr(a, b).statistic ** 2 for a, b in zip(scores[0].T, scores[1].T, strict=True))
    assert conditional_uncorrelatedness(f, z, y).statistic == pytest.approx(expected, rel=1e-6)


def test_class_means_are_subtracted() -> None:
    classes = torch.arange(120) % 3
    f, z = gaussian(120, 2, seed=1), gaussian(120, 2, seed=2)
    result = conditional_uncorrelatedness(f, z, classes)
    shift = gaussian(3, 2, seed=3)[classes]
    assert conditional_uncorrelatedness(f + 50 * shift, z - 9 * shift, classes).statistic == pytest.approx(
        result.statistic, rel=1e-9
    )


def test_statistic_is_independent_of_units() -> None:
    y, f, z = gaussian(100, 1), gaussian(100, 3, seed=1), gaussian(100, 2, seed=2)
    result = conditional_uncorrelatedness(f, z, y)
    other = conditional_uncorrelatedness(f @ gaussian(3, 3, seed=3), 1e4 * z + 7, y)
    assert other.statistic == pytest.approx(result.statistic, rel=1e-9)


def test_features_determined_by_the_labels_are_uncorrelated_given_them() -> None:
    y, z = gaussian(100, 2), gaussian(100, 3, seed=1)
    result = conditional_uncorrelatedness(y @ gaussian(2, 2, seed=2), z, y)
    assert (result.statistic, result.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("labels", ["numbers", "classes"])
def test_five_percent_of_independent_samples_are_rejected(labels: str) -> None:
    repeats, rejected, debiased = 1000, 0, 0.0
    for seed in range(repeats):
        draws = gaussian(100, 9, seed=seed)
        y = draws[:, :2] if labels == "numbers" else torch.arange(100) % 3
        common = draws[:, :1] if labels == "numbers" else (y[:, None] == 0).double()
        result = conditional_uncorrelatedness(draws[:, 2:5] + common, draws[:, 5:9] - 2 * common, y)
        rejected += result.p_value < 0.05
        debiased += result.debiased
    assert 0.02 <= rejected / repeats <= 0.09
    assert abs(debiased / repeats) < 0.01


def test_too_few_samples_raise() -> None:
    with pytest.raises(ValueError, match=r"more than 9 samples for 3 features, 4 pretext labels .* got 9"):
        conditional_uncorrelatedness(gaussian(9, 3), gaussian(9, 4, seed=1), gaussian(9, 1, seed=2))


def test_labels_of_wrong_shape_raise() -> None:
    with pytest.raises(ValueError, match=r"numbers of shape \[n, d_y\] as labels, got shape \[20\]"):
        conditional_uncorrelatedness(gaussian(20, 1), gaussian(20, 1), gaussian(20))
    with pytest.raises(ValueError, match=r"classes of shape \[n\] as labels, got shape \[20, 1\]"):
        conditional_uncorrelatedness(gaussian(20, 1), gaussian(20, 1), torch.zeros(20, 1, dtype=torch.int64))


def test_estimates_agree_with_the_population() -> None:
    data = GaussianData(labels=2, nuisance=3, free=5, pretext=6)
    sample, population = data.sample(200_000, seed=0), data.moments()
    matrix = gaussian(4, 10, seed=1)
    features = sample.inputs @ matrix.T
    statistic = conditional_uncorrelatedness(features, sample.pretext, sample.labels).debiased
    assert statistic == pytest.approx(population_uncorrelatedness(matrix, population), rel=0.02)
    estimate = epsilon_ci(features, sample.pretext, sample.labels)
    assert estimate == pytest.approx(population_epsilon_ci(matrix, population), rel=0.02)
    assert linear_mse(features, sample.labels) == pytest.approx(population.processed(matrix).mse(), rel=0.02)


def test_epsilon_ci_agrees_with_its_definition() -> None:
    """The definition is E‖E[z|x] - E[E[z|y]|x]‖²."""
    data = GaussianData(labels=1, nuisance=2, free=2, pretext=3)
    x, z, y = data.sample(400_000, seed=0)
    of_z = fit_linear(x, z)(x)
    through_y = fit_linear(x, fit_linear(y, z)(y))(x)
    expected = (of_z - through_y).square().sum(1).mean().sqrt()
    assert epsilon_ci(x, z, y) == pytest.approx(float(expected), rel=1e-2)


def test_linear_mse_is_unbiased() -> None:
    data = GaussianData()
    estimates = [linear_mse(inputs, labels) for inputs, _, labels in (data.sample(60, seed=s) for s in range(100))]
    assert sum(estimates) / 100 == pytest.approx(data.bayes_mse, abs=0.05)


def test_fit_linear_agrees_with_scikit_learn() -> None:
    x, y = gaussian(80, 9), gaussian(80, 2, seed=1)
    expected = LinearRegression().fit(x.numpy(), y.numpy()).predict(x.numpy())
    torch.testing.assert_close(fit_linear(x, y)(x), torch.from_numpy(expected))


@pytest.mark.parametrize("hidden", [5, 64])
def test_rank_deficient_float32_features_have_the_error_of_their_basis(hidden: int) -> None:
    x = gaussian(2000, 5).float()
    y = x[:, :2] + gaussian(2000, 2, seed=1).float()
    basis = x if hidden == 5 else torch.relu(x @ gaussian(5, hidden, seed=2).float())
    features = basis @ gaussian(hidden, 2 * hidden, seed=3).float()
    assert linear_mse(features, y) == pytest.approx(linear_mse(basis, y), rel=1e-5)
    expected = LinearRegression().fit(basis.double().numpy(), y.double().numpy()).predict(basis.double().numpy())
    torch.testing.assert_close(fit_linear(features, y)(features), torch.from_numpy(expected).float(), atol=1e-4, rtol=0)


def test_information_loss_is_zero_for_the_oracle_and_half_for_the_blind_processor() -> None:
    data = GaussianData()
    sample = data.sample(50_000, seed=0)
    assert information_loss(sample.inputs @ data.oracle(12).T, sample.labels, data.bayes_mse) == pytest.approx(
        0, abs=0.01
    )
    assert information_loss(sample.inputs @ data.blind(12).T, sample.labels, data.bayes_mse) == pytest.approx(
        0.5, abs=0.01
    )


def test_linear_mse_raises_for_more_features_than_samples() -> None:
    with pytest.raises(ValueError, match=r"more than 10 samples for features of rank 9, got 10"):
        linear_mse(gaussian(10, 20), gaussian(10, 1, seed=1))


@pytest.mark.parametrize(("dependence", "independent"), [(0.0, True), (0.3, False)])
def test_mixture_is_conditionally_independent_only_without_dependence(dependence: float, independent: bool) -> None:
    x, z, y = ClassMixture(dependence=dependence).sample(2000, seed=0)
    assert (conditional_uncorrelatedness(x, z, y).p_value > 0.05) == independent


def test_mixture_with_full_dependence_copies_the_inputs() -> None:
    x, z, _ = ClassMixture(inputs=4, pretext=6, dependence=1.0).sample(10, seed=0)
    torch.testing.assert_close(z[:, :4], x)
    assert (z[:, 4:] == 0).all()


@pytest.mark.parametrize(("clouds", "independent"), [(0.0, True), (0.1, False)])
def test_halves_of_images_are_conditionally_independent_only_without_clouds(clouds: float, independent: bool) -> None:
    images, classes = ClassImages(classes=4, clouds=clouds).sample(2000, seed=0)
    shown, hidden = SplitHalf().pairs(images, classes.numpy(), epoch=0)
    features = torch.nn.functional.adaptive_avg_pool2d(shown[..., :8], 4).flatten(1)
    result = conditional_uncorrelatedness(features, hidden, classes)
    assert (result.p_value > 0.01) == independent


def test_capacity_agrees_with_its_definition() -> None:
    assert capacity_lower_bound(linear_network(52, 12)) == 52
    assert capacity_lower_bound(mlp_network(10, [64, 32], 5)) == 8
    with pytest.raises(ValueError, match=r"layers \['Conv2d'\]"):
        capacity_lower_bound(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))


def test_linear_map_fits_as_many_samples_as_its_capacity() -> None:
    x, y = gaussian(20, 20), gaussian(20, 3, seed=1)
    weight = torch.linalg.lstsq(x, y).solution
    torch.testing.assert_close(x @ weight, y)
