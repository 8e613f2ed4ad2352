"""What heads have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


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
