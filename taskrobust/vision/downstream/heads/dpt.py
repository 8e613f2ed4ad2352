from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskrobust.vision.downstream.heads.base import Head


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
        # The neck wants the class token in front, and drops it.
        tokens = [layer[:, : rows * columns + 1].roll(1, dims=1) for layer in layers]
        logits: Tensor = self.output(self.neck(tokens, rows, columns)[-1]).float()
        size = (rows * self.patch_size, columns * self.patch_size)
        if logits.shape[-2:] != size:  # where a side is no multiple of 32, the coarsest map was rounded up
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return self.largest * torch.sigmoid(logits[:, 0])


def _factor(patch_size: int, stride: int) -> float:
    """How much finer than the patches a map of a stride is; whole numbers are whole, as the neck wants them."""
    return patch_size // stride if patch_size >= stride else patch_size / stride
