"""The vision transformer that all tasks share."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskrobust.vision.mae.blocks import Block, initialize
from taskrobust.vision.modalities import Modality, Prepared


class Encoder(nn.Module):
    """Embeds the visible patches of all maps, adds a learned global token and passes them through transformer blocks.

    There is no normalization after the last block. For fine-tuning, ``Encoder`` is used alone, on all patches.

    Args:
        modalities: The maps that can be read, by name.
        grid: Rows and columns of patches of a map; others are possible later, with resized positions.
        patch_size: Side of a patch in pixels.
        width: Length D of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.
        recompute: Whether hidden layers are computed again in the backward pass, for less memory.

    References:
        Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021.
        Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022, section 3.1.
    """

    positions: Tensor

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        grid: tuple[int, int],
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.heads = heads
        self.embeddings = nn.ModuleDict({name: m.embedding(width, patch_size) for name, m in modalities.items()})
        self.global_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
        self.blocks = nn.ModuleList(Block(width, heads, recompute) for _ in range(depth))
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.apply(initialize)

    def forward(self, maps: Mapping[str, Prepared], visible: Tensor | None = None) -> Tensor:
        """Tokens after the last block, the global one at the end, [B, V + 1, D].

        Args:
            maps: Any of the modalities by name, all on the same grid of L patches.
            visible: Indices into the patches of all ``maps`` one after another, int64 [B, V]. Defaults to all.
        """
        tokens = self._embed(maps, visible)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def extra_repr(self) -> str:
        """Grid and attention heads."""
        return f"grid={self.grid}, heads={self.heads}"

    def layers(self, maps: Mapping[str, Prepared], visible: Tensor | None = None) -> list[Tensor]:
        """Tokens after every block, [B, V + 1, D] each, for heads that read several; arguments as above."""
        outputs = [self._embed(maps, visible)]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return outputs[1:]

    def _embed(self, maps: Mapping[str, Prepared], visible: Tensor | None) -> Tensor:
        """Tokens of the visible patches, with positions, and the global one."""
        positions = resized(self.positions, self.grid, next(iter(maps.values())).grid)
        if visible is None:
            tokens = [self.embeddings[name](prepared.values) + positions for name, prepared in maps.items()]
        else:
            tokens = [self._embed_visible(maps, visible, positions)]
        return torch.cat([*tokens, self.global_token.expand(len(tokens[0]), 1, -1)], dim=1)

    def _embed_visible(self, maps: Mapping[str, Prepared], visible: Tensor, positions: Tensor) -> Tensor:
        patches = len(positions)
        tokens = take(positions, visible % patches)
        for number, (name, prepared) in enumerate(maps.items()):
            # Static shapes: V patches of every map are embedded, whichever are visible.
            place = (visible - number * patches).clamp(0, patches - 1)
            embedded = self.embeddings[name](_take_rows(prepared.values, place))
            tokens = tokens + embedded.where((visible // patches == number)[..., None], 0)
        return tokens

    def set_drop_path(self, rate: float) -> None:
        """Skip blocks in training, with probabilities from 0 for the first to ``rate`` for the last."""
        for block, probability in zip(self.blocks, torch.linspace(0, rate, len(self.blocks)).tolist(), strict=True):
            block.get_submodule("drop_path").drop_prob = probability


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    r"""Fixed positions of the patches of a grid, row by row, [L, width].

    Sine and cosine of :math:`a \omega_i`, then of :math:`b \omega_i`, at row a and column b, a quarter of the width
    each, with :math:`\omega_i = 10000^{-4 i / \text{width}}`.

    Raises:
        ValueError: If four does not divide the width.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.5.
    """
    if width % 4:
        raise ValueError(f"Expected a width that is a multiple of 4 for positions, got {width}.")
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (rows, columns)]
    return torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], dim=1).float()


def resized(positions: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Positions [L, width] of a grid, resized to another one by bicubic interpolation."""
    if new_grid == grid:
        return positions
    maps = positions.T.reshape(1, -1, *grid)
    return F.interpolate(maps, size=new_grid, mode="bicubic", align_corners=False)[0].flatten(1).T


def take(rows: Tensor, index: Tensor) -> Tensor:
    """Rows [..., K] of a table [L, K], for an index of any shape."""
    return rows.index_select(0, index.flatten()).view(*index.shape, -1)


def _take_rows(tables: Tensor, index: Tensor) -> Tensor:
    """Rows [B, V, K] of a table for each sample, [B, L, K], at [B, V]."""
    start = torch.arange(len(tables), device=index.device)[:, None] * tables.shape[1]
    return take(tables.flatten(0, 1), index + start)
