"""The risk of a masked word as that of its class plus that of the word within the class."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from taskrobust.nlp.tagging.tagset import CLASSES
from taskrobust.outputs import Outputs
from taskrobust.ranks import Ranks


def class_distribution(counts: NDArray[np.int64]) -> Tensor:
    r"""The probability of each class given the piece, from counts in a corpus.

    .. math:: A_{v,c} = \frac{n_{v,c} + \pi_c}{\sum_{c'} n_{v,c'} + 1}

    with the shares of the classes :math:`\pi_c` as one more count for each piece, so that no probability is 0.

    Args:
        counts: Number of pieces by id and class, the last one ``OUTSIDE``, [V, 10].

    Returns:
        Float32, [V, 10].
    """
    share = (counts.sum(0) + 1) / (counts.sum() + counts.shape[1])
    return torch.from_numpy((counts + share) / (counts.sum(1, keepdims=True) + 1)).float()


class Parts(NamedTuple):
    r"""The parts of the losses of M masked pieces, in nats.

    With the probabilities q of the model and those of the classes given the piece, A, a piece y of class c has

    .. math::
        q(c) = \sum_v q(v) A_{v,c}, \qquad
        \underbrace{-\log q(y)}_{\text{raw}} = \underbrace{-\log q(c)}_{\text{class}}
        + \underbrace{(-\log q(y \mid c))}_{\text{within}} + \log A_{y,c}

    The part within the class does not change if the model's probabilities are multiplied by a factor for each class,
    which is what a weighting of the classes does to a model of the given capacity.

    Attributes:
        within: Loss of the piece given its class, [M].
        of_class: Loss of the class, [M].
    """

    within: Tensor
    of_class: Tensor


def decompose(scores: Tensor, labels: Tensor, classes: Tensor, distribution: Tensor) -> Parts:
    """The parts of the losses, differentiable with respect to the scores.

    Args:
        scores: Logits of the pieces, [M, V].
        labels: The original pieces, int64 [M].
        classes: Their classes, int64 [M], from 0 to 9.
        distribution: Probability of the classes given the piece, float32 [V, 10].
    """
    return Parts(*_Decomposition.apply(scores, labels, classes, distribution))  # type: ignore[no-untyped-call]


class _Decomposition(torch.autograd.Function):
    """One softmax over the vocabulary and a product with ten columns, rather than one more softmax."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, labels: Tensor, classes: Tensor, distribution: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_probabilities = F.log_softmax(scores, dim=-1, dtype=torch.float32)
        raw = -log_probabilities.gather(1, labels[:, None])[:, 0]
        probabilities = log_probabilities.exp_()
        with torch.autocast(scores.device.type, enabled=False):
            of_its_class = (probabilities @ distribution).gather(1, classes[:, None])[:, 0]
        of_class = -of_its_class.log()
        ctx.save_for_backward(probabilities, labels, classes, distribution, of_its_class)
        ctx.dtype = scores.dtype
        return raw - of_class - distribution[labels, classes].log(), of_class

    @staticmethod
    def backward(ctx: Any, within: Tensor, of_class: Tensor) -> tuple[Tensor, None, None, None]:
        probabilities, labels, classes, distribution, of_its_class = ctx.saved_tensors
        given_class = distribution.T.contiguous()[classes]
        given_class.mul_(((within - of_class) / of_its_class)[:, None]).add_(of_class[:, None]).mul_(probabilities)
        given_class.scatter_add_(1, labels[:, None], -within[:, None])
        return given_class.to(ctx.dtype), None, None, None


class DecompositionScores:
    """Mean held-out losses by class: ``raw/noun``, ``class/noun`` and ``within/noun``, in nats, and their counts.

    Args:
        device: Device of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.total = torch.zeros(4, len(CLASSES), dtype=torch.float64, device="cpu")
        self.device = device

    def update(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> None:
        """Add the sums of a batch, which the model returns as predictions."""
        self.total += outputs.predictions.cpu()

    def compute(self) -> dict[str, float]:
        """The means of the classes that had a masked piece."""
        total = Ranks().sum(self.total.float().to(self.device)).tolist()
        counts = total[3]
        means = {
            f"{part}/{name}": value / count
            for part, values in zip(("raw", "class", "within"), total[:3], strict=True)
            for name, value, count in zip(CLASSES, values, counts, strict=True)
            if count > 0
        }
        return means | {f"pieces/{name}": count for name, count in zip(CLASSES, counts, strict=True)}
