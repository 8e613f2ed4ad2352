"""Errors of processors on synthetic data over n0, λ, d_f and width, compared with plain self-supervised learning."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from taskrobust.studies.pretext.generators import GaussianData
from taskrobust.studies.pretext.least_squares import LinearMap, Moments, fit_linear, linear_mse
from taskrobust.studies.pretext.networks import linear_network, mlp_network
from taskrobust.studies.pretext.pipeline import Probe
from taskrobust.studies.pretext.processor import Pairs, Processor

LABELS = 40
_DRAWS_OF_LABELS = 20
_HELD_OUT = 20_000
PRETEXT_SAMPLES = 1500

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Errors:
    """Mean squared errors of y on held-out samples, medians over seeds. The error of a constant is 1.

    Attributes:
        processed: Best linear prediction from f(x), with infinitely many downstream labels.
        boosted: Processor, pretext task on f(x), and linear probe on n2 downstream labels.
        plain: Pretext task on x, and linear probe on n2 downstream labels.
        pooled: The same as ``plain``, but the probe also uses the n0 labels of the processor.
    """

    processed: float
    boosted: float
    plain: float
    pooled: float


@dataclass(frozen=True)
class Setting:
    """One point of a curve.

    Args:
        extra: Number n0 of downstream samples for the processor.
        penalty: λ.
        features: Number of features d_f.
        free: Uninformative dimensions of the inputs.
        hidden: Width of the hidden layer of an MLP, trained on fewer dimensions and 1,500 pretext samples. None uses a
            linear processor with infinitely many pretext samples.
    """

    extra: int = 500
    penalty: float = 0.3
    features: int = 12
    free: int = 40
    hidden: int | None = None

    def data(self) -> GaussianData:
        """Create the population."""
        if self.hidden is None:
            return GaussianData(free=self.free)
        return GaussianData(nuisance=6, free=20, pretext=12)


CURVES: dict[str, dict[float, Setting]] = {
    "n0": {n: Setting(extra=n) for n in (5, 20, 40, 60, 80, 120, 200, 500, 2000)},
    "lambda": {penalty: Setting(penalty=penalty) for penalty in (0, 0.1, 0.3, 0.6, 0.9, 1.2, 3)},
    "d_f": {d: Setting(extra=100, features=d, free=d) for d in (4, 8, 16, 32, 64, 128)},
    "hidden": {h: Setting(extra=1000, features=8, hidden=h) for h in (8, 32, 128, 512)},
}
"""Settings of each curve by the value that varies."""


def measure(setting: Setting, seeds: int = 3) -> Errors:
    """Train processors and measure their errors.

    Args:
        setting: Settings of the processors.
        seeds: Number of seeds of the samples and the initial weights.
    """
    runs = [asdict(_measure_once(setting, seed)) for seed in range(seeds)]
    return Errors(**{name: median(run[name] for run in runs) for name in runs[0]})


def _measure_once(setting: Setting, seed: int) -> Errors:
    data = setting.data()
    extra = data.sample(setting.extra, seed=1000 + seed)
    held_out = data.sample(_HELD_OUT, seed=9000)
    train = train_linear if setting.hidden is None else _train_mlp
    processor, pretext, plain_pretext = train(setting, data, (extra.inputs, extra.labels), seed)

    def probe(features: Features, pool: bool = False) -> float:
        of_held_out, of_extra = features(held_out.inputs), features(extra.inputs)
        errors = []
        for draw in range(_DRAWS_OF_LABELS):
            labeled = data.sample(LABELS, seed=3000 + 100 * seed + draw)
            known, labels = features(labeled.inputs), labeled.labels
            if pool:
                known, labels = torch.cat([known, of_extra]), torch.cat([labels, extra.labels])
            residuals = Probe().fit(known, labels).predict(of_held_out) - held_out.labels
            errors.append(float(residuals.square().mean()))
        return median(errors)

    return Errors(
        processed=linear_mse(processor.transform(held_out.inputs), held_out.labels),
        boosted=probe(lambda inputs: pretext(processor.transform(inputs))),
        plain=probe(plain_pretext),
        pooled=probe(plain_pretext, pool=True),
    )


class Trained(NamedTuple):
    """Models trained on the same pretext samples.

    Attributes:
        processor: The processor.
        pretext: Predicts z from its features.
        plain_pretext: Predicts z from x.
    """

    processor: Processor
    pretext: LinearMap
    plain_pretext: LinearMap


def train_linear(setting: Setting, data: GaussianData, extra: Pairs, seed: int) -> Trained:
    """Train a linear processor on infinitely many pretext samples.

    Args:
        setting: Settings of a linear processor.
        data: The population.
        extra: n0 inputs and their downstream labels.
        seed: Seed of the initial weights.
    """
    population = data.moments()
    network = linear_network(len(population.xx), setting.features, seed)
    processor = Processor(network, setting.penalty).fit(extra, population)
    pretext = _best_prediction(population.processed(processor.matrix()))
    return Trained(processor, pretext, _best_prediction(population))


def _train_mlp(setting: Setting, data: GaussianData, extra: Pairs, seed: int) -> Trained:
    """Train an MLP on a sample."""
    assert setting.hidden is not None
    sample = data.sample(PRETEXT_SAMPLES, seed=2000 + seed)
    network = mlp_network(sample.inputs.shape[1], [setting.hidden], setting.features, seed)
    processor = Processor(network, setting.penalty, lr=0.01).fit(extra, (sample.inputs, sample.pretext))
    pretext = fit_linear(processor.transform(sample.inputs), sample.pretext)
    return Trained(processor, pretext, fit_linear(sample.inputs, sample.pretext))


def _best_prediction(population: Moments) -> LinearMap:
    """Best linear prediction of z from x."""
    weight = torch.linalg.pinv(population.xx, hermitian=True) @ population.xz
    return LinearMap(weight, torch.zeros(weight.shape[1]).to(weight))
