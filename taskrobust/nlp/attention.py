"""Attention over a batch without padding: its sequences one after another in a single row.

The function is registered with transformers under the name ``UNPADDED``, so no model is changed:
``model.set_attn_implementation(UNPADDED)``. Batches with padding pass through it to ``"sdpa"``.
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.bert.modeling_bert import BertSelfAttention

UNPADDED: Final = "taskrobust_unpadded"
"""The name of this attention in ``model.set_attn_implementation`` and ``from_pretrained(attn_implementation=…)``."""


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
    r"""Lets every token attend to the tokens of its own sequence.

    On CUDA this is ``torch.nn.attention.varlen`` (torch 2.10 or newer, float16 or bfloat16), which has no dropout.
    On the CPU, where the sequences are attended to one by one, dropout is refused as well: a configuration that
    trains on one device trains on the other.

    Args:
        module: The attention layer; its configuration bounds the length of a sequence.
        query: Queries, [1, heads, N, head size], N the number of tokens of the batch.
        key: Keys, as the queries.
        value: Values, as the queries.
        attention_mask: For batches with padding only: true where a key may be read, [B, 1, 1, S].
        scaling: Factor of the attention scores.
        dropout: Probability of dropping an attention weight; must be 0 in a batch without padding.
        cu_seqlens: Where the sequences start, and N at the end: int32 [B + 1]. None for a batch with padding.
        kwargs: What else transformers hands to an attention function.

    Returns:
        The attended values, [1, N, heads, head size], and None in place of the attention weights.

    Raises:
        ValueError: If there is dropout in a batch without padding.
    """
    if cu_seqlens is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return padded
    if dropout > 0:
        raise ValueError(
            f"Expected no attention dropout in a batch without padding, got {dropout}. "
            "Set attention_probs_dropout_prob=0 in the BertConfig, or train on batches with padding."
        )
    if query.is_cuda:
        return _varlen(query, key, value, cu_seqlens, module.config.max_position_embeddings, scaling), None
    return _one_by_one(query, key, value, cu_seqlens, scaling), None


def _varlen(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_length: int, scaling: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (heads[0].transpose(0, 1) for heads in (query, key, value))
    # The longest sequence of the batch would be a tighter bound, and a host synchronization.
    attended = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, max_length, max_length, scale=scaling)
    assert isinstance(attended, Tensor)
    return attended[None]


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scaling: float) -> Tensor:
    lengths = cu_seqlens.diff().tolist()
    sequences = zip(*(torch.split(heads, lengths, dim=2) for heads in (query, key, value)), strict=True)
    attended = [F.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in sequences]
    return torch.cat(attended, dim=2).transpose(1, 2)


AttentionInterface.register(UNPADDED, unpadded_attention)
