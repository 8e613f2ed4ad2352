"""Mixup and CutMix."""

from typing import Final

import torch
from torch import Tensor

from taskrobust.training.data import Key
from taskrobust.vision.transforms.seeded import Stream, global_generators

_MIXING: Final = 0x313C5
"""The purpose of the random numbers."""


class Mixing:
    r"""Mixes each color image of a batch with another one, and their classes likewise: mixup and CutMix.

    .. math:: \tilde x = \lambda x_i + (1 - \lambda) x_j, \qquad \tilde y = \lambda y_i + (1 - \lambda) y_j

    with :math:`\lambda \sim \mathrm{Beta}(a, a)` for mixup; CutMix instead pastes a rectangle of :math:`x_j`
    with the share :math:`1 - \lambda` of the area. The method and λ are drawn once per batch, in which the i-th image
    is mixed with the i-th from the end. Mixed colors are rounded to bytes.

    The mixes depend on the samples of the batch, and the random numbers on the key of its first sample. So, unlike
    everything else in training, two ranks do not see the mixes of one rank with twice the batch. A run that resumes on
    the same number of ranks sees the same mixes.

    Args:
        num_classes: Number of classes C.
        mixup: Parameter a for mixup. 0 disables mixup.
        cutmix: Parameter a for CutMix. 0 disables CutMix.
        switch: Probability of CutMix if both are enabled.
        smoothing: Share of each label that is distributed uniformly over all classes.
        seed: Seed of the random numbers.

    Raises:
        ValueError: If both mixup and CutMix are disabled, or one is negative.

    References:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        switch: float = 0.5,
        smoothing: float = 0.1,
        seed: int = 0,
    ) -> None:
        from timm.data.mixup import Mixup

        if min(mixup, cutmix) < 0 or mixup == cutmix == 0:
            raise ValueError(f"Expected mixup or cutmix above 0, and neither below, got {mixup} and {cutmix}.")
        self.num_classes = num_classes
        self._mix = Mixup(
            mixup_alpha=mixup,
            cutmix_alpha=cutmix,
            switch_prob=switch,
            label_smoothing=smoothing,
            num_classes=num_classes,
        )
        self._stream = Stream(seed, _MIXING)

    def __call__(self, images: Tensor, labels: Tensor, first: Key) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            images: Bytes [B, 3, S, S], B even.
            labels: Their classes, int64 [B].
            first: Key (index, epoch) of the batch's first sample.

        Returns:
            Mixed images, bytes [B, 3, S, S], and their soft labels, float32 [B, C].

        Raises:
            ValueError: If the number of images is odd, or a label is out of range.
        """
        if len(images) % 2:
            raise ValueError(f"Expected an even number of images to mix, got a batch of {len(images)}.")
        outside = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(outside):
            raise ValueError(
                f"Expected labels from 0 to {self.num_classes - 1}, got {int(outside[0])}. Set num_classes to the "
                "number of classes, and use images that have one."
            )
        with global_generators(self._stream.seed(first)):
            mixed, soft_labels = self._mix(images.float(), labels)
        return mixed.round_().to(torch.uint8), soft_labels
