"""Weights in the layouts of others: timm's vision transformer, MAE and MultiMAE."""

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from taskrobust.vision.mae.encoder import sincos_positions
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities.semseg import ClassEmbedding

State = Mapping[str, Any]
"""Weights by name, or a mapping that holds them under "model"."""


def timm_encoder(model: MultiModalMae, modality: str = "rgb") -> VisionTransformer:
    """The encoder as timm's vision transformer: it reads one modality and returns all tokens, the class token first.

    It has no normalization after the last block, as ``Encoder`` has none. Its inputs are normalized: colors by
    ImageNet's mean and deviation.

    Args:
        model: The model.
        modality: Name of the modality, one whose patches are embedded by a single linear map.

    Raises:
        ValueError: If the modality is embedded in another way.
    """
    encoder = model.encoder
    transformer = VisionTransformer(
        img_size=(encoder.grid[0] * model.patch_size, encoder.grid[1] * model.patch_size),
        patch_size=model.patch_size,
        in_chans=_linear(model, modality).in_features // model.patch_size**2,
        num_classes=0,
        global_pool="",
        embed_dim=encoder.positions.shape[1],
        depth=len(encoder.blocks),
        num_heads=encoder.heads,
    )
    transformer.norm = nn.Identity()
    transformer.load_state_dict(export_timm(model, modality))
    return transformer


def export_timm(model: MultiModalMae, modality: str = "rgb") -> dict[str, Tensor]:
    """The state of ``timm_encoder``: the global token is the class token, without position.

    Args:
        model: The model.
        modality: Name of the modality, one whose patches are embedded by a single linear map.

    Raises:
        ValueError: If the modality is embedded in another way.
    """
    encoder, embedding = model.encoder, _linear(model, modality)
    state = {
        "cls_token": encoder.global_token[None, None],
        "pos_embed": nn.functional.pad(encoder.positions, (0, 0, 1, 0))[None],
        "patch_embed.proj.weight": embedding.weight.view(_convolution_shape(embedding, model.patch_size)),
        "patch_embed.proj.bias": embedding.bias,
        **{f"blocks.{name}": weight for name, weight in encoder.blocks.state_dict().items()},
    }
    return {name: weight.detach().clone() for name, weight in state.items()}


def import_timm(model: MultiModalMae, state: State, modality: str = "rgb") -> None:
    """Loads the encoder from a vision transformer in timm's layout, such as MAE's.

    Decoders and other embeddings stay as they are. A normalization after the last block is left out, as the encoder has
    none. MAE's positions are ours with rows and columns exchanged: the channels are put in our order throughout, so
    that the encoder computes what MAE's did.

    Args:
        model: Takes the weights.
        state: The weights.
        modality: Name of the modality that the transformer reads.

    Raises:
        ValueError: If a weight is missing or has another size, or positions are other than sines and cosines.
    """
    checkpoint, encoder = _Checkpoint(state), model.encoder
    width, shape = encoder.positions.shape[1], _convolution_shape(_linear(model, modality), model.patch_size)
    positions = checkpoint.take("pos_embed", (1, None, width))[0]
    order = _order_of_channels(positions[1:])
    loaded = {
        "global_token": (checkpoint.take("cls_token", (1, 1, width))[0, 0] + positions[0])[order],
        f"embeddings.{modality}.weight": checkpoint.take("patch_embed.proj.weight", shape).flatten(1)[order],
        f"embeddings.{modality}.bias": checkpoint.take("patch_embed.proj.bias", (width,))[order],
    }
    for name, weight in encoder.blocks.state_dict().items():
        loaded[f"blocks.{name}"] = _reordered(name, checkpoint.take(f"blocks.{name}", weight.shape), order)
    checkpoint.refuse_rest("blocks.")
    encoder.load_state_dict(encoder.state_dict() | loaded)


def import_multimae(model: MultiModalMae, state: State) -> None:
    """Loads embeddings, encoder and decoders from a checkpoint in MultiMAE's layout.

    Modalities have the same names there. Those that the model lacks are left out; positions are fixed and not read.

    Args:
        model: Takes the weights.
        state: The weights.

    Raises:
        ValueError: If a weight is missing or has another size.
    """
    checkpoint, encoder = _Checkpoint(state), model.encoder
    loaded = {"encoder.global_token": checkpoint.take("global_tokens", (1, 1, *encoder.global_token.shape))[0, 0]}
    for name, weight in encoder.blocks.state_dict().items():
        loaded[f"encoder.blocks.{name}"] = checkpoint.take(f"encoder.{name}", weight.shape)
    checkpoint.refuse_rest("encoder.")
    for modality, embedding in encoder.embeddings.items():
        weights = _multimae_embedding(checkpoint, f"input_adapters.{modality}.", embedding, model.patch_size)
        loaded |= {f"encoder.embeddings.{modality}.{name}": weight for name, weight in weights.items()}
    for task, decoder in model.decoders.items():
        weights = _multimae_decoder(checkpoint, f"output_adapters.{task}.", decoder, list(model.inputs))
        loaded |= {f"decoders.{task}.{name}": weight for name, weight in weights.items()}
    model.load_state_dict(loaded)


def _multimae_embedding(
    checkpoint: "_Checkpoint", prefix: str, embedding: nn.Module, patch_size: int
) -> dict[str, Tensor]:
    convolution = checkpoint.take(f"{prefix}proj.weight", _convolution_shape(embedding, patch_size))
    if isinstance(embedding, ClassEmbedding):
        return {
            "classes.weight": checkpoint.take(f"{prefix}class_emb.weight", embedding.classes.weight.shape),
            "projection.weight": convolution.permute(0, 2, 3, 1).flatten(1),
            "projection.bias": checkpoint.take(f"{prefix}proj.bias", embedding.projection.bias.shape),
        }
    return {"weight": convolution.flatten(1), "bias": checkpoint.take(f"{prefix}proj.bias", convolution.shape[:1])}


def _multimae_decoder(
    checkpoint: "_Checkpoint", prefix: str, decoder: nn.Module, modalities: Sequence[str]
) -> dict[str, Tensor]:
    weights = {}
    for name, weight in decoder.state_dict().items():
        if name == "modality_embedding":
            vector = (1, 1, weight.shape[1])
            rows = [checkpoint.take(f"{prefix}task_embeddings.{modality}", vector) for modality in modalities]
            weights[name] = torch.cat(rows)[:, 0]
        elif name == "mask_token":
            weights[name] = checkpoint.take(prefix + name, (1, 1, *weight.shape))[0, 0]
        else:
            theirs = re.sub("^blocks", "decoder_transformer", re.sub("^attn", "decoder", name))
            weights[name] = checkpoint.take(prefix + theirs, weight.shape)
    checkpoint.refuse_rest(f"{prefix}decoder_transformer.")
    return weights


class _Checkpoint:
    """Weights to be taken by name."""

    def __init__(self, state: State) -> None:
        self.rest: dict[str, Tensor] = dict(state.get("model", state))

    def take(self, name: str, shape: Sequence[int | None]) -> Tensor:
        """A weight of the shape, in which None stands for any length."""
        if name not in self.rest:
            raise ValueError(f"Expected a checkpoint with {name!r}, got one without. Is it of this layout and depth?")
        weight = self.rest.pop(name)
        fits = len(weight.shape) == len(shape) and all(s in (None, w) for s, w in zip(shape, weight.shape, strict=True))
        if not fits:
            expected = ["any" if side is None else side for side in shape]
            raise ValueError(
                f"Expected {name!r} of shape {expected}, got {list(weight.shape)}. Make a model of its size."
            )
        return weight.detach()

    def refuse_rest(self, prefix: str) -> None:
        """Raises if weights under the prefix were not taken: they are of a larger model, or of another kind."""
        rest = [name for name in self.rest if name.startswith(prefix)]
        if rest:
            raise ValueError(f"Expected no more weights under {prefix!r} than the model has, got {rest[0]!r} as well.")


def _linear(model: MultiModalMae, modality: str) -> nn.Linear:
    if modality not in model.inputs:
        raise ValueError(f"Expected one of the modalities {list(model.inputs)}, got {modality!r}.")
    embedding = model.encoder.embeddings[modality]
    if not isinstance(embedding, nn.Linear):
        raise ValueError(
            f"Expected a modality that a linear map embeds, got {modality!r}, which has its own embedding."
        )
    return embedding


def _convolution_shape(embedding: nn.Module, patch_size: int) -> tuple[int, int, int, int]:
    """Shape of the weight of the convolution that does the same."""
    if isinstance(embedding, ClassEmbedding):
        width, inputs = embedding.projection.weight.shape
        channels = embedding.classes.embedding_dim
    elif isinstance(embedding, nn.Linear):
        width, inputs = embedding.weight.shape
        channels = inputs // patch_size**2
    else:
        raise ValueError(f"Expected an embedding that such checkpoints have, got {type(embedding).__name__}.")
    side = isqrt(inputs // channels)
    return width, channels, side, side


def _order_of_channels(positions: Tensor) -> Tensor:
    """The order that makes of positions [L, D] of rows and columns, or columns and rows, our own."""
    patches, width = positions.shape
    ours = sincos_positions((isqrt(patches), isqrt(patches)), width)
    same = torch.arange(width)
    for order in (same, same.roll(width // 2)):
        if ours.shape == positions.shape and torch.allclose(positions[:, order].float().cpu(), ours, atol=1e-4):
            return order
    raise ValueError(
        "Expected fixed positions of sines and cosines in 'pos_embed', got others, which the model cannot use."
    )


def _reordered(name: str, weight: Tensor, order: Tensor) -> Tensor:
    """Reorders the channels of the tokens, which a weight of a block reads or writes."""
    if name.endswith(("qkv.bias", "fc1.bias")):
        return weight
    return weight[:, order] if name.endswith(("qkv.weight", "fc1.weight")) else weight[order]
