"""Colors relative to their patch, a task that needs no additional maps."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from taskrobust.vision.modalities.base import Prepared
from taskrobust.vision.modalities.rgb import Rgb


@dataclass(frozen=True)
class NormRgb(Rgb):
    r"""Predicts colors that are standardized in each patch, with the squared error.

    .. math:: \hat x = \frac{x - \bar x}{\sqrt{s^2 + 10^{-6}}}

    over all channels and pixels of the patch, :math:`s^2` the unbiased variance.

    References:
        He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, section 3.
    """

    source: ClassVar[str | None] = "rgb"

    def patch_losses(self, prediction: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Squared errors against the standardized colors."""
        mean, deviation = _mean_and_deviation(prepared.values)
        return super().patch_losses(prediction, prepared._replace(values=(prepared.values - mean).div_(deviation)))

    def predicted_values(self, prediction: Tensor, prepared: Prepared) -> Tensor:
        """The prediction with the true mean and deviation of each patch, so that it can be looked at."""
        mean, deviation = _mean_and_deviation(prepared.values)
        return prediction * deviation + mean


def _mean_and_deviation(patches: Tensor) -> tuple[Tensor, Tensor]:
    mean = patches.mean(-1, keepdim=True)
    # On a CPU many times as fast as torch.var_mean.
    variance = torch.linalg.vector_norm(patches - mean, dim=-1, keepdim=True).square() / (patches.shape[-1] - 1)
    return mean, (variance + 1e-6).sqrt()
