from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, channels_last, nn
from torch.nn import functional as F

from taskrobust.vision.downstream.heads.base import Head, initialize_head, patch_map

if TYPE_CHECKING:
    from timm.models.convnext import ConvNeXtBlock

_SIDE: Final = 4


class ConvNextHead(Head):
    """Scores of classes for each pixel: patches become 4 x 4 places each, which ConvNeXt blocks look at.

    A linear map makes 16 vectors of a token, one for each place; four blocks without layer scale, a linear map to
    scores and bilinear interpolation to pixels follow.

    Args:
        width: Length D of a token.
        depth: Blocks of the encoder.
        patch_size: Side of a patch in pixels.
        num_classes: Number of classes.
        channels: Length of the vector of a place.

    References:
        Liu et al., A ConvNet for the 2020s, CVPR 2022.
        Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022, appendix.
    """

    def __init__(self, width: int, depth: int, patch_size: int, num_classes: int, channels: int = 384) -> None:
        super().__init__()
        self.blocks = (depth - 1,)
        self.patch_size = patch_size
        self.places = nn.Conv2d(width, channels * _SIDE**2, kernel_size=1)
        self.shuffle = nn.PixelShuffle(_SIDE)
        self.convnext = nn.Sequential(*(_block(channels) for _ in range(4)))
        self.scores = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.apply(initialize_head)

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Scores [B, num_classes, H, W], float32; the arguments are those of ``Head``."""
        places = self.shuffle(self.places(patch_map(layers[-1], grid)))
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        # Depthwise convolutions are faster on a CPU this way, and the blocks need not change the order.
        scores = self.scores(self.convnext(places.contiguous(memory_format=channels_last))).float()
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


class _DepthwiseConv(nn.Conv2d):
    """In float32 on a CPU, where its gradient would take up to four times as long in bfloat16."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def _block(channels: int) -> "ConvNeXtBlock":
    from timm.models.convnext import ConvNeXtBlock

    block = ConvNeXtBlock(channels, ls_init_value=None)
    block.conv_dw = _DepthwiseConv(channels, channels, kernel_size=7, padding=3, groups=channels)
    return block
