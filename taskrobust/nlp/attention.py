"""Attention over an unpadded batch, whose sequences are concatenated in a single row.

The function is registered with transformers under the name ``UNPADDED``, so no model has to be changed: call
``model.set_attn_implementation(UNPADDED)``. Padded batches use ``"sdpa"``.
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.bert.modeling_bert import BertSelfAttention

UNPADDED: Final = "taskrobust_unpadded"
"""Name of this attention in ``model.set_attn_implementation`` and ``from_pretrained(attn_implementation=…)``."""


def unpadded_attention(
    module: BertSelfAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    cu_seqlens: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    r"""Let each token attend to the tokens of its sequence.

    On CUDA this is ``torch.nn.attention.varlen`` (torch 2.10 or newer, float16 or bfloat16), which does not support
    dropout. On the CPU the sequences are processed one by one. Dropout is refused there too, so that a configuration
    works on both.

    Args:
        module: The attention layer; its configuration bounds the length of the sequences.
        query: Queries, [1, heads, N, head size] for N tokens in the batch.
        key: Keys, same shape.
        value: Values, same shape.
        attention_mask: For padded batches: true where a key may be read, [B, 1, 1, S].
        scaling: Factor of the attention scores.
        dropout: Probability of dropping an attention weight; must be 0 in an unpadded batch.
        cu_seqlens: Start of each sequence, then N, int32 [B + 1]. None for a padded batch.
        kwargs: Other arguments that transformers passes to attention functions.

    Returns:
        The attended values, [1, N, heads, head size], and None instead of the attention weights.

    Raises:
        ValueError: If there is dropout in an unpadded batch.
    """
    if cu_seqlens is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return padded
    if dropout > 0:
        raise ValueError(
            f"Expected no attention dropout in an unpadded batch, got {dropout}. "
            "Set attention_probs_dropout_prob=0 in the BertConfig, or use padded batches."
        )
    if query.is_cuda:
        return _varlen(query, key, value, cu_seqlens, module.config.max_position_embeddings, scaling), None
    return _one_by_one(query, key, value, cu_seqlens, scaling), None


def _varlen(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_length: int, scaling: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (heads[0].transpose(0, 1) for heads in (query, key, value))
    # The longest sequence of the batch would be a tighter bound, but require a host synchronization.
    attended = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, max_length, max_length, scale=scaling)
    assert isinstance(attended, Tensor)
    return attended[None]


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scaling: float) -> Tensor:
    lengths = cu_seqlens.diff().tolist()
    sequences = zip(*(torch.split(heads, lengths, dim=2) for heads in (query, key, value)), strict=True)
    attended = [F.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in sequences]
    return torch.cat(attended, dim=2).transpose(1, 2)


AttentionInterface.register(UNPADDED, unpadded_attention)
