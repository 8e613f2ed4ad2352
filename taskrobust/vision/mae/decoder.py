"""The decoder of one task: predicts all its patches from the encoder's tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskrobust.vision.mae.blocks import NORM_EPS, Block, CrossAttention, Mlp, initialize
from taskrobust.vision.mae.encoder import sincos_positions, take


class Decoder(nn.Module):
    """Lets one query per patch attend to all visible tokens, then passes the queries through transformer blocks.

    The query of a visible patch is its token, that of a masked one a learned vector.

    Args:
        modalities: Number M of maps that the encoder reads.
        own: Index of the one that the task predicts.
        grid: Rows and columns of patches of a map.
        outputs: Numbers to predict per patch.
        encoder_width: Length of the encoder's tokens.
        width: Length d of a query.
        depth: Number of blocks after the cross-attention.
        heads: Attention heads.

    References:
        Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022, section 3.3.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        modalities: int,
        own: int,
        grid: tuple[int, int],
        outputs: int,
        encoder_width: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.own = own
        self.proj_context = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.modality_embedding = nn.Parameter(nn.init.trunc_normal_(torch.empty(modalities, width), std=0.02))
        self.query_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.context_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = CrossAttention(width, heads)
        self.out_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.out_proj = nn.Linear(width, outputs)
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.apply(initialize)

    def forward(self, tokens: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predictions for all patches of the task, [B, L, outputs].

        Args:
            tokens: The encoder's tokens, the global one at the end, [B, V + 1, D].
            visible: Which patches of all maps they are, int64 [B, V].
            masked: Which patches of the task's own map are not among them, bool [B, L].
        """
        context = self.proj_context(tokens)
        seen = context[:, :-1]
        queries = self._queries(seen, visible, masked)
        queries = queries + (self.positions + self.modality_embedding[self.own])
        patches = len(self.positions)
        places = take(self.positions, visible % patches) + F.embedding(visible // patches, self.modality_embedding)
        context = torch.cat([seen + places, context[:, -1:]], dim=1)

        queries = self.attn(self.query_norm(queries), self.context_norm(context))
        queries = queries + self.mlp(self.out_norm(queries))
        for block in self.blocks:
            queries = block(queries)
        predictions: Tensor = self.out_proj(queries)
        return predictions

    def extra_repr(self) -> str:
        """The map that is predicted."""
        return f"own={self.own}"

    def _queries(self, seen: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """The tokens of the task's own visible patches at their places, the learned vector at the others, [B, L, d]."""
        batch, patches = masked.shape
        place = visible - self.own * patches
        inside = (place >= 0) & (place < patches)
        # Tokens of other maps go to an extra row, which is dropped.
        start = torch.arange(batch, device=seen.device)[:, None] * (patches + 1)
        rows = (place.where(inside, patches) + start).flatten()
        own = seen.new_zeros(batch * (patches + 1), seen.shape[-1]).index_copy(0, rows, seen.flatten(0, 1))
        own = own.view(batch, patches + 1, -1)[:, :-1]
        return torch.where(masked[..., None], self.mask_token.to(seen.dtype), own)
