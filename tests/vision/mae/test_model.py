import copy
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from taskrobust import GradNorm, MultiTaskLoss, SoftmaxMinimax
from taskrobust.outputs import Outputs
from taskrobust.vision.mae.blocks import Block
from taskrobust.vision.mae.encoder import resized, sincos_positions
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Depth, Modality, NormRgb, Rgb, SemSeg
from taskrobust.vision.modalities.base import from_patches
from taskrobust.vision.modalities.semseg import VOID

Batch = dict[str, Tensor]
MakeModel = Callable[..., MultiModalMae]
PATCHES, PATCH = 16, 8
THREE: Mapping[str, Modality] = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg()}
FOUR: Mapping[str, Modality] = {**THREE, "norm_rgb": NormRgb()}
WEIGHTS = torch.tensor([0.1, 0.4, 0.3, 0.2])


@dataclass(frozen=True)
class Infrared(Depth):
    """A modality of a user."""

    gain: float = 2.0
    suffixes: ClassVar[tuple[str, ...]] = (".tif",)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def backward(model: MultiModalMae, batch: Batch, criterion: MultiTaskLoss | None = None) -> dict[str, Tensor]:
    """Gradients of all parameters for fixed weights, or those of a criterion."""
    model.zero_grad()
    outputs = model(**batch)
    total = outputs.losses.sums @ WEIGHTS if criterion is None else criterion(outputs)
    total.backward()
    return gradients_of(model)


# The specification, once more, one sample at a time and in image space.


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    return torch.einsum("...i,oi->...o", x, layer.weight) + layer.bias


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    centerd = x - x.mean(-1, keepdim=True)
    return centerd / (centerd.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias


def attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    parts = []
    for q, k, v in zip(queries.chunk(heads, -1), keys.chunk(heads, -1), values.chunk(heads, -1), strict=True):
        parts.append((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v)
    return torch.cat(parts, -1)


def perceptron(x: Tensor, mlp: nn.Module) -> Tensor:
    return linear(F.gelu(linear(x, mlp.fc1)), mlp.fc2)


def block(x: Tensor, layer: Any) -> Tensor:
    x = x + linear(
        attention(*linear(norm(x, layer.norm1), layer.attn.qkv).chunk(3, -1), layer.attn.heads), layer.attn.proj
    )
    return x + perceptron(norm(x, layer.norm2), layer.mlp)


def sample_losses(model: MultiModalMae, sample: Batch, visible: Tensor) -> dict[str, Tensor | None]:
    """The mean loss of one sample for each task, None where nothing is masked or known."""
    encoder, names = model.encoder, list(model.inputs)
    has = dict(zip(names, sample["present"].tolist(), strict=True))
    maps, known = {}, {}
    for name, modality in model.inputs.items():
        prepared = modality.prepare(sample[name][None], torch.ones(1, dtype=torch.bool), PATCH)
        channels = 3 if name == "rgb" else 1
        maps[name] = from_patches(prepared.values, prepared.grid, channels)[0]
        known[name] = torch.full_like(maps[name][:1], True, dtype=torch.bool)
        if name != "rgb":
            known[name] = from_patches(prepared.valid, prepared.grid, 1)[0]

    tokens = []
    for name in names:
        embedding = encoder.embeddings[name]
        if name == "semseg":
            vectors = F.one_hot(maps[name][0].clamp(max=5), 6)[..., :-1].float() @ embedding.classes.weight
            weight = embedding.projection.weight.view(-1, 2, 2, 64).permute(0, 3, 1, 2)
            cells = F.conv2d(vectors.permute(2, 0, 1), weight, embedding.projection.bias, stride=2)
        else:
            weight = embedding.weight.view(len(embedding.bias), -1, PATCH, PATCH)
            cells = F.conv2d(maps[name], weight, embedding.bias, stride=PATCH)
        tokens.append(cells.flatten(1).T + encoder.positions)
    x = torch.cat([torch.cat(tokens)[visible], encoder.global_token[None]])
    for layer in encoder.blocks:
        x = block(x, layer)

    losses: dict[str, Tensor | None] = {}
    for task, modality in model.modalities.items():
        own = modality.source or task
        start = names.index(own) * PATCHES
        decoder: Any = model.decoders[task]
        c = linear(x, decoder.proj_context)
        table = torch.cat([decoder.positions + embedding for embedding in decoder.modality_embedding])
        context = torch.cat([c[:-1] + table[visible], c[-1:]])
        queries = [decoder.mask_token] * PATCHES
        masked = torch.ones(PATCHES, dtype=torch.bool)
        for token, place in zip(c, visible.tolist(), strict=False):
            if start <= place < start + PATCHES:
                queries[place - start] = token
                masked[place - start] = False
        q = torch.stack(queries) + table[start : start + PATCHES]
        keys, values = linear(norm(context, decoder.context_norm), decoder.attn.kv).chunk(2, -1)
        q = linear(norm(q, decoder.query_norm), decoder.attn.q)
        y = linear(attention(q, keys, values, decoder.attn.heads), decoder.attn.proj)
        y = y + perceptron(norm(y, decoder.out_norm), decoder.mlp)
        for layer in decoder.blocks:
            y = block(y, layer)
        cells = linear(y, decoder.out_proj).T.view(1, -1, 4, 4)
        predicted = F.pixel_shuffle(cells, 2 if task == "semseg" else PATCH)[0]
        error = image_loss(task, predicted, maps[own])
        side = error.shape[-1] // 4
        counted = masked.view(4, 4).repeat_interleave(side, 0).repeat_interleave(side, 1) & known[own][0]
        losses[task] = error[:, counted].mean() if counted.any() and has[own] else None
    return losses


def image_loss(task: str, predicted: Tensor, target: Tensor) -> Tensor:
    if task == "semseg":
        return F.cross_entropy(predicted[None], target[:1], reduction="none", ignore_index=VOID)
    if task == "depth":
        return (predicted - target).abs()
    if task == "norm_rgb":
        cells = F.pixel_unshuffle(target, PATCH).flatten(1)
        cells = (cells - cells.mean(0)) / (cells.var(0) + 1e-6).sqrt()
        target = F.pixel_shuffle(cells.view(1, -1, 4, 4), PATCH)[0]
    return (predicted - target) ** 2


def test_losses_are_those_of_the_specification_sample_by_sample(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    visible = model.budget(mae_batch["mask_keys"], mae_batch["present"], PATCHES).visible
    samples = [{name: column[i] for name, column in mae_batch.items()} for i in range(6)]
    with torch.no_grad():
        parts = [sample_losses(model, sample, seen) for sample, seen in zip(samples, visible, strict=True)]
        losses = model(**mae_batch).losses
        sums, counts = losses.sums, losses.counts

    found = {task: [part[task] for part in parts if part[task] is not None] for task in model.tasks}
    assert counts.tolist() == [len(losses) for losses in found.values()] == [6, 4, 4, 6]
    expected = torch.stack([torch.stack(losses).sum() for losses in found.values()])
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)


def test_the_parameters_are_as_many_as_the_specification_says() -> None:
    def millions(module: nn.Module) -> float:
        return sum(parameter.numel() for parameter in module.parameters()) / 1e6

    with torch.device("meta"):
        model, small = MultiModalMae(FOUR), MultiModalMae(FOUR, width=192, heads=3, decoder_width=128)
        three = MultiModalMae(THREE)

    assert millions(three) == pytest.approx(95.15, abs=0.005)
    assert millions(model) == pytest.approx(97.917, abs=0.0005)
    assert millions(small) == pytest.approx(8.73, abs=0.005)
    assert millions(model.encoder.blocks) == pytest.approx(85.054, abs=0.0005)
    assert [millions(m) for m in model.encoder.embeddings.values()] == pytest.approx([0.591, 0.197, 0.796], abs=0.0005)
    assert [millions(m) for m in model.decoders.values()] == pytest.approx([2.765, 2.634, 3.115, 2.765], abs=0.001)


def test_the_initialisation_is_that_of_the_specification() -> None:
    torch.manual_seed(0)
    model = MultiModalMae(THREE, 32, 8, 64, 1, 2, 32, 1, 2, 8)
    decoder: Any = model.decoders["rgb"]

    def bound(fan_in: int, fan_out: int) -> float:
        return (6 / (fan_in + fan_out)) ** 0.5

    for layer, expected in (
        (model.encoder.blocks[0].attn.qkv, bound(64, 64)),
        (model.encoder.blocks[0].attn.proj, bound(64, 64)),
        (model.encoder.blocks[0].mlp.fc1, bound(64, 256)),
        (model.encoder.embeddings["rgb"], bound(3 * 64, 64)),
        (model.encoder.embeddings["semseg"].projection, bound(4 * 64, 64)),
        (decoder.attn.kv, bound(32, 32)),
        (decoder.out_proj, bound(32, 3 * 64)),
    ):
        assert layer.weight.detach().abs().max() == pytest.approx(expected, rel=0.02)
        assert (layer.bias == 0).all()
    for vectors in (model.encoder.embeddings["semseg"].classes.weight, model.encoder.global_token):
        assert vectors.detach().std() == pytest.approx(0.02, rel=0.3)
    assert decoder.modality_embedding.abs().max() < 0.1
    assert (decoder.mask_token == 0).all()


def test_positions_are_sines_and_cosines_of_row_and_column() -> None:
    positions = sincos_positions((3, 5), 16)
    row, column, i = 2, 3, 1
    angle_row, angle_column = row * 1e4 ** (-i / 4), column * 1e4 ** (-i / 4)
    expected = torch.tensor([angle_row, angle_row, angle_column, angle_column])
    expected = torch.stack([expected[0].sin(), expected[1].cos(), expected[2].sin(), expected[3].cos()])
    torch.testing.assert_close(positions[row * 5 + column, i::4], expected)


def test_positions_of_another_grid_are_resized_row_by_row() -> None:
    positions = sincos_positions((4, 4), 8)
    assert resized(positions, (4, 4), (4, 4)) is positions
    other = resized(positions, (4, 4), (8, 6)).view(8, 6, 8)
    torch.testing.assert_close(other[:, 0, :4], other[:, 5, :4])  # rows do not depend on the column
    torch.testing.assert_close(other[0, :, 4:], other[7, :, 4:])


# Nothing missing or empty breaks anything.


def test_a_modality_that_no_sample_has_counts_nowhere_and_every_parameter_still_gets_a_gradient(
    small_mae: MakeModel, mae_batch: Batch
) -> None:
    model = small_mae()
    mae_batch["present"][:, 1:] = False
    losses = model(**mae_batch).losses
    sums, counts = losses.sums, losses.counts
    sums.sum().backward()

    assert counts.tolist() == [6, 0, 0, 6]
    assert sums[1:3].tolist() == [0, 0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_a_fully_visible_sample_counts_nowhere_and_gives_finite_gradients(
    small_mae: MakeModel, mae_batch: Batch, memory_efficient: bool
) -> None:
    model = small_mae(visible=PATCHES, memory_efficient=memory_efficient)
    mae_batch["present"][:, 1:] = False
    losses = model(**mae_batch).losses
    sums, counts = losses.sums, losses.counts
    sums.sum().backward()

    assert counts.tolist() == [0] * 4
    assert sums.tolist() == [0] * 4
    assert all((gradient == 0).all() for gradient in gradients_of(model).values())


def test_maps_without_a_known_pixel_count_nowhere(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    mae_batch["depth"].zero_()
    mae_batch["semseg"].fill_(VOID)
    losses = model(**mae_batch).losses
    losses.sums.sum().backward()

    assert losses.counts.tolist() == [6, 0, 0, 6]
    assert all(gradient.isfinite().all() for gradient in gradients_of(model).values())


def test_what_a_missing_map_holds_does_not_matter(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    expected = model(**mae_batch).losses.sums
    mae_batch["depth"][[0, 2]] = 3.0
    mae_batch["semseg"][[1, 2]] = 4
    assert torch.equal(model(**mae_batch).losses.sums, expected)


def test_the_visible_patches_of_other_tasks_and_no_masked_one_reach_a_prediction(
    small_mae: MakeModel, mae_batch: Batch
) -> None:
    model = small_mae()
    expected = model.predict(**mae_batch)
    masked = expected.masked[:, 0].view(-1, 1, 4, 4).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    changed = {**mae_batch, "rgb": torch.where(masked, 255 - mae_batch["rgb"], mae_batch["rgb"])}
    other = {**mae_batch, "rgb": torch.where(masked, mae_batch["rgb"], 255 - mae_batch["rgb"])}

    assert torch.equal(model.predict(**changed).predictions["semseg"], expected.predictions["semseg"])
    assert torch.equal(model.predict(**changed).predictions["rgb"], expected.predictions["rgb"])
    assert not torch.allclose(model.predict(**other).predictions["semseg"], expected.predictions["semseg"])


def test_a_sample_gives_the_same_losses_in_any_batch(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    halves = [{name: column[part] for name, column in mae_batch.items()} for part in (slice(2), slice(2, None))]
    losses = model(**mae_batch).losses
    sums, counts = losses.sums, losses.counts
    parts = [model(**half).losses for half in halves]
    torch.testing.assert_close(parts[0].sums + parts[1].sums, sums, rtol=1e-5, atol=1e-5)
    assert torch.equal(parts[0].counts + parts[1].counts, counts)


def test_task_counts_are_the_counts_of_the_forward_pass(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    for batch in (mae_batch, {name: column[:1] for name, column in mae_batch.items()}):
        torch.testing.assert_close(model.task_counts(batch), model(**batch).losses.counts, rtol=0, atol=0)


def test_predictions_have_the_form_of_what_they_predict(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    predictions, prepared, masked = model.predict(**mae_batch)
    assert list(predictions) == list(model.tasks)
    assert masked.shape == (6, 3, PATCHES)
    for task, modality in model.modalities.items():
        target = prepared[modality.source or task]
        assert modality.predicted_values(predictions[task], target).shape == target.values.shape
        assert not predictions[task].requires_grad


# One decoder at a time.


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compares by norms, relative to that of the expected gradient of a parameter."""
    assert list(found) == list(expected)
    for name, gradient in found.items():
        assert (gradient - expected[name]).norm() <= tolerance * expected[name].norm().clamp(min=1e-3), name


CRITERIA: dict[str, Callable[[], MultiTaskLoss | None]] = {
    "fixed": lambda: None,
    "minimax": lambda: MultiTaskLoss(list(FOUR), SoftmaxMinimax()),
    "gradnorm": lambda: MultiTaskLoss(list(FOUR), GradNorm()),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_one_decoder_at_a_time_gives_the_same_gradients(small_mae: MakeModel, mae_batch: Batch, name: str) -> None:
    model = small_mae()
    expected_criterion, criterion = CRITERIA[name](), CRITERIA[name]()
    for _ in range(2):  # GradNorm's weights change after the first step
        expected = backward(model, mae_batch, expected_criterion)
        model.memory_efficient = True
        found = backward(model, mae_batch, criterion)
        model.memory_efficient = False
        assert_same_gradients(found, expected, 1e-6)
    assert len(expected) == len(list(model.parameters()))
    if criterion is not None and expected_criterion is not None:
        torch.testing.assert_close(criterion.last.weight_vector, expected_criterion.last.weight_vector)


def test_one_decoder_at_a_time_is_close_under_bfloat16_autocast(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    with torch.autocast("cpu", torch.bfloat16):
        expected = backward(model, mae_batch)
        model.memory_efficient = True
        found = backward(model, mae_batch)
    assert_same_gradients(found, expected, 5e-2)  # either is off by about 3 %


def test_one_decoder_at_a_time_gives_gradients_of_each_task_to_the_shared_activation(
    small_mae: MakeModel, mae_batch: Batch
) -> None:
    model = small_mae()
    rows = []
    for model.memory_efficient in (False, True):
        outputs = model(**mae_batch)
        sums, shared = outputs.losses.sums, outputs.shared
        assert shared.shape == (6, 9, 32)
        rows.append(torch.stack([torch.autograd.grad(task, shared, retain_graph=True)[0] for task in sums]))
    torch.testing.assert_close(rows[1], rows[0], rtol=1e-5, atol=1e-6)


def test_one_decoder_at_a_time_keeps_no_graph_of_a_decoder(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    operations = []
    for model.memory_efficient in (False, True):
        outputs = model(**mae_batch)
        operations.append(len(graph_of(outputs.losses.sums) - graph_of(outputs.shared)))
    assert operations[0] > 200
    assert operations[1] == 5  # one for each task, and the stack of their results


def graph_of(tensor: Tensor) -> set[Any]:
    """The operations that made a tensor, without the parameters."""
    seen: set[Any] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        operation = waiting.pop()
        if operation is not None and operation not in seen and "AccumulateGrad" not in type(operation).__name__:
            seen.add(operation)
            waiting += [parent for parent, _ in operation.next_functions]
    return seen


def test_one_decoder_at_a_time_leaves_frozen_parameters_alone(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae(memory_efficient=True)
    model.decoders["depth"].requires_grad_(False)
    gradients = backward(model, mae_batch)
    assert not any(name.startswith("decoders.depth") for name in gradients)


def test_one_decoder_at_a_time_in_float16_is_refused(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae(memory_efficient=True)
    with (
        torch.autocast("cpu", torch.float16),
        pytest.raises(
            ValueError, match="Expected float32 or bfloat16 with memory_efficient=True, got autocast to float16"
        ),
    ):
        model(**mae_batch)


def test_evaluation_is_the_same_with_and_without_one_decoder_at_a_time(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    with torch.no_grad():
        expected = model(**mae_batch).losses
        model.memory_efficient = True
        found = model(**mae_batch).losses
    assert torch.equal(found.sums, expected.sums)
    assert not found.sums.requires_grad


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("memory_efficient", [False, True])
@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel_finds_a_gradient_of_every_parameter(
    small_mae: MakeModel, mae_batch: Batch, memory_efficient: bool
) -> None:
    model = small_mae()
    mae_batch["present"][:, 1:] = False
    expected = backward(model, mae_batch)
    model.zero_grad()
    model.memory_efficient = memory_efficient
    parallel = DistributedDataParallel(model)
    for _ in range(2):  # the second step fails if the first left a parameter out
        model.zero_grad()
        outputs: Outputs = parallel(**mae_batch)
        (outputs.losses.sums @ WEIGHTS).backward()
    assert_same_gradients(gradients_of(model), expected, 1e-6)


# Precision and compilation.


def test_losses_are_float32_under_bfloat16_autocast(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    expected = model(**mae_batch).losses
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(**mae_batch).losses
    assert losses.sums.dtype == losses.counts.dtype == torch.float32
    torch.testing.assert_close(losses.sums, expected.sums, rtol=5e-2, atol=5e-2)
    assert torch.equal(losses.counts, expected.counts)


def test_attention_in_bfloat16_on_the_cpu_is_that_in_float32() -> None:
    torch.manual_seed(0)
    layer, tokens = Block(32, 4), torch.randn(2, 9, 32)
    expected = layer(tokens)
    torch.testing.assert_close(layer.bfloat16()(tokens.bfloat16()).float(), expected, rtol=5e-2, atol=5e-2)


def test_the_encoder_compiles_to_one_graph(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    expected = backward(model, mae_batch)
    model.encoder.compile(backend="aot_eager", fullgraph=True)
    for _ in range(2):
        found = backward(model, mae_batch)
    assert_same_gradients(found, expected, 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("memory_efficient", [False, True])
def test_a_step_never_waits_for_the_device(small_mae: MakeModel, mae_batch: Batch, memory_efficient: bool) -> None:
    model = small_mae(memory_efficient=memory_efficient).cuda()
    batch = {name: column.cuda() for name, column in mae_batch.items()}
    weights = WEIGHTS.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            losses = model(**batch).losses
        (losses.sums @ weights).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Use by others.


def test_the_encoder_alone_reads_any_of_the_modalities_at_any_size(small_mae: MakeModel) -> None:
    model = small_mae()
    images = torch.randint(256, (2, 3, 48, 64), dtype=torch.uint8)
    prepared = Rgb().prepare(images, torch.ones(2, dtype=torch.bool), PATCH)
    tokens = model.encoder({"rgb": prepared})
    layers = model.encoder.layers({"rgb": prepared})
    assert tokens.shape == (2, 6 * 8 + 1, 32)
    assert len(layers) == 2
    assert torch.equal(layers[-1], tokens)
    torch.testing.assert_close(model.encoder.blocks[1](layers[0]), tokens)


def test_masks_are_drawn_and_all_maps_are_present_by_default(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    maps = {name: mae_batch[name] for name in model.inputs}
    keys, everywhere = mae_batch["mask_keys"], torch.ones(6, 3, dtype=torch.bool)
    assert torch.equal(model(keys, **maps).losses.sums, model(keys, everywhere, **maps).losses.sums)
    assert not torch.equal(model.predict(**maps).masked, model.predict(**maps).masked)
    assert "budget='dirichlet'" in repr(model)


def test_all_patches_named_one_by_one_are_all_patches(small_mae: MakeModel, mae_batch: Batch) -> None:
    model = small_mae()
    prepared = model.predict(**mae_batch).prepared
    every = torch.arange(3 * PATCHES).expand(6, -1)
    torch.testing.assert_close(model.encoder(prepared, every), model.encoder(prepared), rtol=1e-5, atol=1e-5)


def test_drop_path_grows_with_depth_and_is_off_in_evaluation(small_mae: MakeModel, mae_batch: Batch) -> None:
    encoder = small_mae(depth=3).encoder
    encoder.set_drop_path(0.4)
    assert [layer.drop_path.drop_prob for layer in encoder.blocks] == pytest.approx([0, 0.2, 0.4])
    prepared = {"rgb": Rgb().prepare(mae_batch["rgb"], torch.ones(6, dtype=torch.bool), PATCH)}
    assert not torch.equal(encoder.train()(prepared), encoder(prepared))
    assert torch.equal(encoder.eval()(prepared), encoder(prepared))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_can_be_copied_after_a_forward_pass(
    small_mae: MakeModel, mae_batch: Batch, copied: Callable[[MultiModalMae], MultiModalMae]
) -> None:
    model = small_mae()
    losses = model(**mae_batch).losses
    again = copied(model)
    assert torch.equal(again(**mae_batch).losses.sums, losses.sums)


def test_what_is_saved_loads_with_tasks_in_their_order_and_modalities_of_users(
    small_mae: MakeModel, mae_batch: Batch, tmp_path: Path
) -> None:
    modalities = {"semseg": SemSeg(num_classes=5, class_width=8), "thermal": Infrared(gain=3.0), "rgb": Rgb()}
    batch = {**mae_batch, "thermal": mae_batch["depth"]}
    del batch["depth"]
    model = small_mae(modalities=modalities, budget="fixed", proportions=[1, 2, 3])
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    again = MultiModalMae.from_pretrained(tmp_path)

    assert {"config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
    assert saved["modalities"][1]["init_args"] == {"unit": 0.001, "gain": 3.0}
    assert again.tasks == ("semseg", "thermal", "rgb")
    assert again.modalities == modalities
    assert torch.equal(again(**batch).losses.sums, model(**batch).losses.sums)
    again.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text()) == saved


def test_a_saved_model_without_one_of_its_weights_is_refused(small_mae: MakeModel, tmp_path: Path) -> None:
    small_mae(depth=1).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="Missing key"):
        MultiModalMae.from_pretrained(tmp_path, depth=2)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.maps:Infrared", "got one of the module 'no_such_package.maps'"),
        ("builtins:dict", "Expected a modality at 'builtins:dict', got <class 'dict'>"),
    ],
)
def test_a_saved_modality_that_is_not_there_is_refused(
    small_mae: MakeModel, tmp_path: Path, path: str, message: str
) -> None:
    small_mae().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["modalities"][0]["class_path"] = path
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        MultiModalMae.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visible": 17}, "Expected at most 16 visible patches, the number in a map of 32 pixels, .* got 17"),
        ({"image_size": 36}, "Expected an image size that is a multiple of 8, got 36"),
        ({"heads": 3}, "Expected a width that is a multiple of the number of heads, got 32 and 3"),
        ({"width": 6}, "Expected a width that is a multiple of 4 for positions, got 6"),
        (
            {"modalities": {"depth": Depth(), "norm_rgb": NormRgb()}},
            r"Expected 'rgb', the source of 'norm_rgb', among \['depth'\]",
        ),
        (
            {"budget": "fixed", "proportions": [1, 2]},
            r"Expected one proportion for each of \['rgb', 'depth', 'semseg'\]",
        ),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(
    small_mae: MakeModel, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_mae(**settings)


def test_a_batch_without_one_of_the_maps_is_refused(small_mae: MakeModel, mae_batch: Batch) -> None:
    del mae_batch["depth"]
    with pytest.raises(
        ValueError, match=r"Expected maps of each of \['rgb', 'depth', 'semseg'\], got \['rgb', 'semseg'\]"
    ):
        small_mae()(**mae_batch)


def test_maps_of_another_size_are_refused(small_mae: MakeModel, mae_batch: Batch) -> None:
    mae_batch["rgb"] = mae_batch["rgb"][..., :24, :24]
    with pytest.raises(ValueError, match=r"Expected maps of \(4, 4\) patches of 8 pixels, got \(3, 3\) in 'rgb'"):
        small_mae()(**mae_batch)
