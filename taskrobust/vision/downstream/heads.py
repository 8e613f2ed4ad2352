"""The modules that predict from the encoder's tokens."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, channels_last, nn
from torch.nn import functional as F

from taskrobust.vision.mae.blocks import NORM_EPS

if TYPE_CHECKING:
    from timm.models.convnext import ConvNeXtBlock

_SIDE: Final = 4


class Head(nn.Module, ABC):
    """Predicts from the encoder's tokens.

    Where the encoder reads several maps, what is predicted for each pixel comes from the tokens of the first map's
    patches, which have read those of the others by attention.

    Attributes:
        blocks: The encoder's blocks whose tokens the head reads, from 0 on.
    """

    blocks: tuple[int, ...]

    @abstractmethod
    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Predictions for a batch.

        Args:
            layers: For each of ``blocks`` its tokens, [B, N, D], those of the first map's patches in front, the global
                one at the end.
            grid: Rows and columns of patches of a map.
        """

    def extra_repr(self) -> str:
        """The blocks that are read."""
        return f"blocks={self.blocks}"


def patch_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The tokens of the first map's patches as a map, [B, D, rows, columns]."""
    rows, columns = grid
    return tokens[:, : rows * columns].transpose(1, 2).reshape(len(tokens), -1, rows, columns)


def initialize_head(module: nn.Module) -> None:
    """Small weights, normally distributed, and no bias, for ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class LinearHead(Head):
    """Scores of classes from the mean of all tokens: normalized, then mapped linearly.

    Args:
        width: Length D of a token.
        depth: Blocks of the encoder.
        num_classes: Number of classes.
    """

    def __init__(self, width: int, depth: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = (depth - 1,)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, num_classes)
        self.apply(initialize_head)

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Scores [B, num_classes], float32; the arguments are those of ``Head``."""
        scores: Tensor = self.linear(self.norm(layers[-1].mean(1)))
        return scores.float()


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
    """In float32 on a CPU, where its gradient is up to four times slower in bfloat16."""

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


class DptHead(Head):
    r"""Depth in meters for each pixel, from tokens after a quarter, half, three quarters and all of the blocks.

    The four become maps with strides of 4, 8, 16 and 32 pixels and are fused from coarse to fine. Of the fused map's
    one channel x the depth is :math:`d_{max} / (1 + e^{-x})`, which is always a possible one. The neck is that of
    ``transformers``, without the first fusion's unit for a map from before, which it would never use.

    Args:
        width: Length D of a token.
        depth: Blocks of the encoder, at least four.
        patch_size: Side of a patch in pixels, a power of two.
        largest: Largest depth in meters.
        channels: Channels of the fused map. The four have 3/8, 3/4, 3/2 and 3 times as many, from fine to coarse.

    Raises:
        ValueError: If depth or patch size do not fit.

    References:
        Ranftl et al., Vision Transformers for Dense Prediction, ICCV 2021.
    """

    def __init__(self, width: int, depth: int, patch_size: int, largest: float = 10.0, channels: int = 256) -> None:
        from transformers import DPTConfig
        from transformers.models.dpt.modeling_dpt import DPTNeck

        super().__init__()
        if depth < 4 or patch_size.bit_count() != 1:
            raise ValueError(
                "Expected an encoder of at least 4 blocks, and patches whose side is a power of two, for a DPT head, "
                f"got {depth} blocks and patches of {patch_size} pixels."
            )
        self.blocks = tuple(quarter * depth // 4 - 1 for quarter in (1, 2, 3, 4))
        self.patch_size = patch_size
        self.largest = largest
        self.neck = DPTNeck(
            DPTConfig(
                hidden_size=width,
                readout_type="ignore",
                reassemble_factors=[_factor(patch_size, stride) for stride in (4, 8, 16, 32)],
                neck_hidden_sizes=[3 * 2**level * channels // 8 for level in range(4)],
                fusion_hidden_size=channels,
            )
        )
        self.neck.fusion_stage.layers[0].residual_layer1 = nn.Identity()
        self.output = nn.Sequential(
            nn.Conv2d(channels, channels // 2, kernel_size=3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(channels // 2, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, kernel_size=1),
        )
        # Convolutions in bfloat16 are up to three times as fast this way, on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has no type for it

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Meters [B, H, W], float32; the arguments are those of ``Head``."""
        rows, columns = grid
        # The neck expects the class token first, and drops it.
        tokens = [layer[:, : rows * columns + 1].roll(1, dims=1) for layer in layers]
        logits: Tensor = self.output(self.neck(tokens, rows, columns)[-1]).float()
        size = (rows * self.patch_size, columns * self.patch_size)
        if logits.shape[-2:] != size:  # where a side is no multiple of 32, the coarsest map was rounded up
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return self.largest * torch.sigmoid(logits[:, 0])


def _factor(patch_size: int, stride: int) -> float:
    """How much finer than the patches a map of a stride is; integers stay integers, as the neck requires."""
    return patch_size // stride if patch_size >= stride else patch_size / stride
