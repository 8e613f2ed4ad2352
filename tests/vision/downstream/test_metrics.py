"""Scores beside those of scikit-learn and numpy."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score, top_k_accuracy_score
from torch import Tensor

from taskrobust import Outputs, TaskLosses
from taskrobust.vision.downstream.base import Predicted
from taskrobust.vision.downstream.metrics import DepthErrors, Iou, SumScores, TopK

CPU = torch.device("cpu")
VOID = 255


def scores_of(scores: SumScores, predictions: Tensor, truth: Tensor, batch_size: int = 3) -> dict[str, float]:
    """As an evaluation has them, in batches of which the last is smaller."""
    for guess, true in zip(predictions.split(batch_size), truth.split(batch_size), strict=True):
        nothing = TaskLosses(torch.zeros(1), torch.zeros(1))
        scores.update(Outputs(nothing, predictions=Predicted(guess, true)), {})
    return scores.compute()


@pytest.mark.parametrize("seed", range(5))
def test_top1_and_top5_are_those_of_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.randn(50, 11, generator=generator)
    truth = torch.randint(-1, 11, (50,), generator=generator)
    scores = scores_of(TopK(11, -1, CPU), predictions, truth)
    known = (truth >= 0).numpy()
    labels, guesses = truth.numpy()[known], predictions.numpy()[known]
    expected = {f"top{k}": top_k_accuracy_score(labels, guesses, k=k, labels=np.arange(11)) for k in (1, 5)}
    assert scores == pytest.approx(expected, abs=1e-9)


def test_few_classes_have_no_top5() -> None:
    assert scores_of(TopK(5, -1, CPU), torch.eye(5), torch.arange(5)) == {"top1": 1.0}


@pytest.mark.parametrize("seed", range(5))
def test_miou_is_that_of_scikit_learn_over_all_pixels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 7, (7, 9, 8), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = VOID
    predictions = torch.randn(7, 10, 9, 8, generator=generator)
    predictions[:, 8:] = -9  # never predicted, nor there: they are no classes of the mean
    scores = scores_of(Iou(10, VOID, CPU), predictions, truth)
    known = (truth != VOID).numpy()
    labels, guesses = truth.numpy()[known], predictions.argmax(1).numpy()[known]
    expected = {
        "miou": jaccard_score(labels, guesses, average="macro"),  # over the labels that occur on either side
        "pixel_accuracy": accuracy_score(labels, guesses),
    }
    assert scores == pytest.approx(expected, abs=1e-9)


def depth_pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = 0.3 + 9.7 * torch.rand(7, 6, 8, generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.3] = 0
    truth[2] = 0
    return (truth + 0.1 + 2 * torch.rand(truth.shape, generator=generator)) * 0.8, truth


def depth_errors(guess: np.ndarray, true: np.ndarray) -> np.ndarray:
    factor = np.maximum(guess / true, true / guess)
    return np.array(
        [
            *(np.mean(factor < 1.25**power) for power in (1, 2, 3)),
            np.sqrt(np.mean((guess - true) ** 2)),
            np.mean(np.abs(guess - true) / true),
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_depth_scores_are_means_over_pixels_and_over_images(seed: int) -> None:
    predictions, truth = depth_pair(seed)
    scores = scores_of(DepthErrors(CPU), predictions, truth)
    guess, true = predictions.double().numpy(), truth.double().numpy()
    names = ["delta1", "delta2", "delta3", "rmse", "abs_rel"]
    images = [depth_errors(g[t > 0], t[t > 0]) for g, t in zip(guess, true, strict=True) if (t > 0).any()]
    expected = dict(zip(names, depth_errors(guess[true > 0], true[true > 0]), strict=True))
    expected |= dict(zip([f"{name}_per_image" for name in names], np.mean(images, axis=0), strict=True))
    assert scores == pytest.approx(expected, abs=1e-9)
    assert len(images) == 6


def test_depth_that_is_predicted_as_nothing_is_far_off_but_finite() -> None:
    scores = scores_of(DepthErrors(CPU), torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    assert scores["delta3"] == 0
    assert all(np.isfinite(list(scores.values())))


def test_scores_do_not_depend_on_the_batches() -> None:
    predictions, truth = depth_pair(0)
    for batch_size in (1, 2, 7):
        assert scores_of(DepthErrors(CPU), predictions, truth, batch_size) == pytest.approx(
            scores_of(DepthErrors(CPU), predictions, truth), abs=1e-12
        )


@pytest.mark.parametrize(
    "scores", [TopK(9, -1, CPU), Iou(4, VOID, CPU), DepthErrors(CPU)], ids=lambda s: type(s).__name__
)
def test_scores_of_nothing_are_zero(scores: SumScores) -> None:
    assert set(scores.compute().values()) == {0.0}
