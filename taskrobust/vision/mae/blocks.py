"""Building blocks of encoder and decoders."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

NORM_EPS: Final = 1e-6


class Block(nn.Module):
    """A transformer block with normalization before attention and before the perceptron.

    Args:
        width: Length of a token.
        heads: Attention heads.
        recompute: See ``Mlp``.
    """

    def __init__(self, width: int, heads: int, recompute: bool = False) -> None:
        from timm.layers import DropPath

        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, recompute)
        self.drop_path = DropPath(0.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape, [B, N, width]."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        output: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return output


class SelfAttention(nn.Module):
    """Attention of each token to all tokens.

    Args:
        width: Length of a token.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape, [B, N, width]."""
        queries, keys, values = split_heads(self.qkv(tokens), self.heads, 3)
        attended: Tensor = self.proj(attend(queries, keys, values))
        return attended

    def extra_repr(self) -> str:
        """Number of heads."""
        return f"heads={self.heads}"


class CrossAttention(nn.Module):
    """Attention of queries to a context.

    Args:
        width: Length of a query.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Attend from queries [B, N, width] to a context [B, S, width]; returns [B, N, width]."""
        (heads,) = split_heads(self.q(queries), self.heads, 1)
        keys, values = split_heads(self.kv(context), self.heads, 2)
        attended: Tensor = self.proj(attend(heads, keys, values))
        return attended

    def extra_repr(self) -> str:
        """Number of heads."""
        return f"heads={self.heads}"


class Mlp(nn.Module):
    """A perceptron with one hidden layer, four times as wide.

    Args:
        width: Length of a token.
        recompute: Whether to recompute the hidden layer in the backward pass from the input of its nonlinearity, which
            saves a quarter of a block's activations for a few percent of its time.
    """

    def __init__(self, width: int, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape, [..., width]."""
        hidden = self.fc1(tokens)
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._read, hidden, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]
        return self._read(hidden)

    def extra_repr(self) -> str:
        """Whether the hidden layer is recomputed."""
        return f"recompute={self.recompute}"

    def _read(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.fc2(F.gelu(hidden))
        return output


def split_heads(joint: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """Split a joint projection [B, N, parts · width] into queries, keys or values [B, heads, N, head size] each."""
    batch, number, width = joint.shape
    cut = joint.view(batch, number, parts, heads, width // parts // heads)
    return tuple(cut.permute(2, 0, 3, 1, 4))


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention, [B, N, width], of inputs [B, heads, N or S, head size]."""
    if queries.is_cpu and queries.dtype == torch.bfloat16:
        # PyTorch's fused attention is several times slower here.
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        attended = scores.softmax(dim=-1) @ values
    else:
        attended = F.scaled_dot_product_attention(queries, keys, values)
    joint: Tensor = attended.transpose(1, 2).flatten(2)
    return joint


def initialize(module: nn.Module) -> None:
    """Initialize linear layers by Xavier's uniform distribution, each part of a joint projection separately; no bias.

    For ``Module.apply``, which visits a layer before the module that contains it.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, SelfAttention):
        _initialize_parts(module.qkv, 3)
    elif isinstance(module, CrossAttention):
        _initialize_parts(module.kv, 2)


def _initialize_parts(joint: nn.Linear, parts: int) -> None:
    for part in joint.weight.detach().chunk(parts):
        nn.init.xavier_uniform_(part)
