from typing import Final

import torch
from torch import Tensor

from taskrobust.vision.downstream.metrics.sums import SumScores, ratio

_NAMES: Final = ("delta1", "delta2", "delta3", "rmse", "abs_rel")
_LEAST: Final = 1e-3
"""Meters. What is predicted nearer is taken for this."""


class DepthErrors(SumScores):
    r"""How near predicted depths are to the true ones.

    .. math:: \delta_k = P\left[\max\left(\frac{\hat d}{d}, \frac{d}{\hat d}\right) < 1.25^k\right], \qquad
        \mathrm{rmse} = \sqrt{E(\hat d - d)^2}, \qquad \mathrm{abs\_rel} = E\,\frac{|\hat d - d|}{d}

    over all known pixels of the data, in meters, and, with the ending ``_per_image``, over the known pixels of each
    image, then averaged over the images that have any. Papers report the one or the other; where images have as many
    known pixels, only the rmse differs.

    Args:
        device: Where the predictions are.

    References:
        Eigen et al., Depth Map Prediction from a Single Image using a Multi-Scale Deep Network, NeurIPS 2014.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(torch.zeros(2, 1 + len(_NAMES), dtype=torch.float64, device=device))

    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Take in predicted and true meters, [B, H, W] each, 0 where unknown."""
        known = (truth > 0).flatten(1)
        target = truth.double().flatten(1).where(known, 1)
        guess = predictions.double().flatten(1).clamp(min=_LEAST).where(known, 1)
        factor = torch.maximum(guess / target, target / guess)
        errors = (guess - target).abs()
        near = [(factor < 1.25**power).double() for power in (1, 2, 3)]
        per_pixel = torch.stack([*near, errors.square(), errors / target])  # [5, B, pixels]
        numbers = known.sum(1).double()
        in_images = per_pixel.where(known, 0).sum(-1)
        means = ratio(in_images, numbers)
        means[3].sqrt_()
        self.sums[0] += torch.cat([numbers[None], in_images]).sum(1)
        self.sums[1] += torch.cat([(numbers > 0).double()[None], means]).sum(1)

    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """The five, and the five per image."""
        per_pixel, per_image = ratio(sums[:, 1:], sums[:, :1])
        per_pixel[3].sqrt_()
        scores = dict(zip(_NAMES, per_pixel, strict=True))
        return scores | {f"{name}_per_image": score for name, score in zip(_NAMES, per_image, strict=True)}
