import re
from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from taskrobust.vision.mae.interop import export_timm, import_multimae, import_timm, timm_encoder
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Depth, Rgb

Batch = dict[str, Tensor]
State = dict[str, Tensor]
MakeModel = Callable[..., MultiModalMae]
HERE = torch.ones(6, dtype=torch.bool)


def multimae_state(model: MultiModalMae) -> State:
    """The model's weights in MultiMAE's layout."""
    state = {}
    for name, weight in model.state_dict().items():
        name = name.replace("encoder.global_token", "global_tokens").replace("encoder.blocks", "encoder")
        if name == "global_tokens":
            weight = weight[None, None]
        elif match := re.fullmatch(r"encoder.embeddings.(\w+)\.(.+)", name):
            modality, kind = match.groups()
            name = f"input_adapters.{modality}." + {"classes.weight": "class_emb.weight"}.get(
                kind, f"proj.{kind[-6:].strip('.n')}"
            )
            if name.endswith("proj.weight"):
                side = 2 if modality == "semseg" else 8
                channels = weight.shape[1] // side**2
                last = weight.view(len(weight), side, side, channels).permute(0, 3, 1, 2)
                weight = last if modality == "semseg" else weight.view(len(weight), channels, side, side)
        elif match := re.fullmatch(r"decoders.(\w+)\.(.+)", name):
            task, kind = match.groups()
            kind = re.sub("^attn", "decoder", re.sub("^blocks", "decoder_transformer", kind))
            name = f"output_adapters.{task}.{kind}"
            if kind == "modality_embedding":
                for modality, vector in zip(model.inputs, weight, strict=True):
                    state[f"output_adapters.{task}.task_embeddings.{modality}"] = vector[None, None]
                continue
            weight = weight[None, None] if kind == "mask_token" else weight
        state[name] = weight
    fixed = {f"{adapters}.rgb.pos_emb": torch.zeros(1, 32, 4, 4) for adapters in ("input_adapters", "output_adapters")}
    return {name: weight.clone() for name, weight in (state | fixed).items()}


def mae_state(vit: VisionTransformer) -> State:
    """The state of a transformer with MAE's positions: those of the columns first."""
    positions = vit.pos_embed[0, 1:]
    vit.pos_embed.data[0, 1:] = positions.view(4, 4, -1).transpose(0, 1).flatten(0, 1)
    return {"norm.weight": torch.ones(32), "decoder_embed.weight": torch.zeros(2, 2), **vit.state_dict()}


def tokens_of(vit: VisionTransformer, modality: Rgb | Depth, maps: Tensor) -> Tensor:
    """All tokens of timm's model, the class token moved to the end."""
    prepared = modality.prepare(maps, HERE, 8)
    channels = vit.patch_embed.proj.in_channels
    images = nn.functional.fold(prepared.values.transpose(1, 2), (32, 32), kernel_size=8, stride=8)
    assert images.shape[1] == channels
    return vit(images).roll(-1, dims=1)


@pytest.mark.parametrize("modality", ["rgb", "depth"])
def test_timm_computes_the_features_of_the_exported_encoder(
    small_mae: MakeModel, mae_batch: Batch, modality: str
) -> None:
    model = small_mae()
    maps = mae_batch[modality]
    expected = model.encoder({modality: model.modalities[modality].prepare(maps, HERE, 8)})
    found = tokens_of(timm_encoder(model, modality), model.modalities[modality], maps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_exported_is_a_copy(small_mae: MakeModel) -> None:
    model = small_mae()
    before = model.encoder.global_token.clone()
    export_timm(model)["cls_token"].zero_()
    assert torch.equal(model.encoder.global_token, before)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_exported_encoder_is_imported_as_it_was(small_mae: MakeModel, wrapped: bool) -> None:
    model, other = small_mae(), small_mae()
    decoders = {name: weight.clone() for name, weight in other.decoders.state_dict().items()}
    state = export_timm(model)
    import_timm(other, {"model": state, "epoch": 3} if wrapped else state)

    for name, weight in other.encoder.state_dict().items():
        same = torch.equal(weight, model.encoder.state_dict()[name])
        assert same == (not name.startswith("embeddings.") or name.startswith("embeddings.rgb")), name
    assert all(torch.equal(weight, decoders[name]) for name, weight in other.decoders.state_dict().items())


def test_an_imported_mae_computes_what_it_did_up_to_the_order_of_channels(
    small_mae: MakeModel, mae_batch: Batch
) -> None:
    vit, model = timm_encoder(small_mae()), small_mae()
    state = mae_state(vit)
    import_timm(model, {"model": state})
    expected = tokens_of(vit, Rgb(), mae_batch["rgb"])
    assert not torch.equal(state["pos_embed"][0, 1:], model.encoder.positions)
    found = model.encoder({"rgb": Rgb().prepare(mae_batch["rgb"], HERE, 8)})
    torch.testing.assert_close(found, expected.roll(16, dims=-1), rtol=1e-4, atol=1e-4)


def test_a_class_token_with_a_position_becomes_the_global_token(small_mae: MakeModel) -> None:
    model, other = small_mae(), small_mae()
    state = export_timm(model)
    state["pos_embed"][:, 0] = 0.5
    import_timm(other, state)
    torch.testing.assert_close(other.encoder.global_token, model.encoder.global_token + 0.5)


def test_a_multimae_checkpoint_gives_the_losses_of_its_model(small_mae: MakeModel, mae_batch: Batch) -> None:
    model, other = small_mae(), small_mae()
    state = multimae_state(model)
    import_multimae(other, {"model": state})
    assert {"input_adapters.semseg.class_emb.weight", "output_adapters.rgb.decoder.kv.weight"} <= set(state)
    assert torch.equal(other(**mae_batch).losses.sums, model(**mae_batch).losses.sums)


def test_modalities_that_the_model_lacks_are_left_out(small_mae: MakeModel) -> None:
    model = small_mae()
    few = small_mae(modalities={"rgb": Rgb(), "depth": Depth()})
    import_multimae(few, multimae_state(model))
    assert torch.equal(few.decoders["depth"].modality_embedding, model.decoders["depth"].modality_embedding[:2])
    assert torch.equal(few.encoder.embeddings["depth"].weight, model.encoder.embeddings["depth"].weight)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("global_tokens", None, "Expected a checkpoint with 'global_tokens', got one without"),
        ("encoder.1.mlp.fc1.weight", None, "Expected a checkpoint with 'encoder.1.mlp.fc1.weight'"),
        ("input_adapters.rgb.proj.weight", torch.zeros(32, 3, 4, 4), r"of shape \[32, 3, 8, 8\], got \[32, 3, 4, 4\]"),
        ("output_adapters.rgb.task_embeddings.depth", None, "'output_adapters.rgb.task_embeddings.depth'"),
        (
            "encoder.2.norm1.weight",
            torch.zeros(32),
            "Expected no more weights under 'encoder.' .* got 'encoder.2.norm1",
        ),
        ("output_adapters.rgb.decoder_transformer.1.norm1.bias", torch.zeros(16), "Expected no more weights under"),
    ],
)
def test_a_multimae_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(
    small_mae: MakeModel, name: str, change: Tensor | None, message: str
) -> None:
    model = small_mae()
    state = multimae_state(small_mae())
    if change is None:
        del state[name]
    else:
        state[name] = change
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        import_multimae(model, state)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cls_token", None, "Expected a checkpoint with 'cls_token', got one without"),
        ("cls_token", torch.zeros(1, 1, 16), r"Expected 'cls_token' of shape \[1, 1, 32\], got \[1, 1, 16\]"),
        (
            "pos_embed",
            torch.zeros(1, 17, 32),
            "Expected fixed positions of sines and cosines in 'pos_embed', got others",
        ),
        ("pos_embed", torch.zeros(1, 17, 16), r"of shape \[1, 'any', 32\], got \[1, 17, 16\]"),
        ("blocks.0.ls1.gamma", torch.zeros(32), "Expected no more weights under 'blocks.' .* got 'blocks.0.ls1.gamma'"),
    ],
)
def test_a_timm_checkpoint_that_does_not_fit_is_refused(
    small_mae: MakeModel, name: str, change: Tensor | None, message: str
) -> None:
    state = export_timm(small_mae())
    if change is None:
        del state[name]
    else:
        state[name] = change
    with pytest.raises(ValueError, match=message):
        import_timm(small_mae(), state)


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ("semseg", "Expected a modality that a linear map embeds, got 'semseg'"),
        ("red", r"Expected one of the modalities \['rgb', 'depth', 'semseg'\], got 'red'"),
    ],
)
def test_a_modality_that_timm_cannot_read_is_refused(small_mae: MakeModel, modality: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_timm(small_mae(), modality)
