import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from taskrobust.vision.downstream import Classification, DepthEstimation, DownstreamTask, LinearProbe, Segmentation
from taskrobust.vision.downstream.hub import load_downstream, save_downstream
from taskrobust.vision.downstream.model import DownstreamModel
from taskrobust.vision.figures import prediction_columns, prediction_sheet
from taskrobust.vision.mae.model import MultiModalMae

CLASSES = 5
TASKS: list[DownstreamTask] = [
    Classification(CLASSES),
    LinearProbe(CLASSES),
    Segmentation(CLASSES, channels=4),
    DepthEstimation(channels=8),
]
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
Make = Callable[..., DownstreamModel]


@pytest.fixture
def make(small_mae: Callable[..., MultiModalMae]) -> Make:
    """Makes small models of a task, from a pre-trained one of four blocks."""

    def make_model(task: DownstreamTask, inputs: tuple[str, ...] = ("rgb",), **changes: Any) -> DownstreamModel:
        return DownstreamModel.from_mae(small_mae(depth=4, **changes), task, inputs)

    return make_model


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Four samples; the last has no colors."""
    generator = torch.Generator().manual_seed(1)
    depth = 0.5 + torch.rand(4, 1, 32, 32, generator=generator)
    depth[0, :, :9] = 0
    semseg = torch.randint(CLASSES, (4, 32, 32), generator=generator, dtype=torch.uint8)
    semseg[1, 3:8] = 255
    present = torch.ones(4, 3, dtype=torch.bool)
    present[3, 0] = False
    return {
        "rgb": torch.randint(256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8),
        "depth": depth,
        "semseg": semseg,
        "label": torch.tensor([0, 4, -1, 2]),
        "present": present,
    }


def test_encoder_is_that_of_the_pre_trained_model(small_mae: Callable[..., MultiModalMae]) -> None:
    mae = small_mae(depth=4)
    model = DownstreamModel.from_mae(mae, Classification(CLASSES), ["rgb"])
    there = mae.encoder.state_dict()
    assert all(torch.equal(value, there[name]) for name, value in model.encoder.state_dict().items())
    assert list(model.encoder.embeddings) == ["rgb"]


@each_task
def test_loss_sums_over_the_known_elements(task: DownstreamTask, make: Make, batch: dict[str, Tensor]) -> None:
    model = make(task).eval()
    outputs = model(**batch)
    losses = outputs.losses
    counts = {
        "classification": 2,  # one has no label, one no colors
        "linear-probe": 2,
        "semseg": 3 * 32 * 32 - 5 * 32,
        "depth": 3 * 32 * 32 - 9 * 32,
    }
    assert losses.counts.tolist() == [counts[task.name]]
    assert torch.equal(model.task_counts(batch), losses.counts)
    known = model.truth(batch) != task.unknown
    elements = task.losses(outputs.predictions.values, model.truth(batch), batch, training=False)
    assert losses.sums.item() == pytest.approx(elements[known].sum().item(), rel=1e-5)
    assert losses.sums.dtype == losses.counts.dtype == torch.float32


@pytest.mark.parametrize("task", TASKS[2:], ids=lambda task: type(task).__name__)
def test_unknown_pixels_give_no_gradient(task: DownstreamTask, make: Make, batch: dict[str, Tensor]) -> None:
    model = make(task)
    predictions = model.predict(**batch).requires_grad_()
    truth = model.truth(batch)
    task.losses(predictions, truth, batch, training=True).where(truth != task.unknown, 0).sum().backward()
    assert predictions.grad is not None
    gradient = predictions.grad if task.name == "depth" else predictions.grad.abs().sum(1)
    assert not gradient[truth == task.unknown].any()
    assert gradient[truth != task.unknown].any()


@each_task
def test_every_trained_parameter_gets_a_gradient(task: DownstreamTask, make: Make, batch: dict[str, Tensor]) -> None:
    model = make(task, inputs=("rgb", "depth") if task.name == "semseg" else ("rgb",))
    model(**batch).losses.sums.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (task.trains_encoder or name.startswith("head."))
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_second_input_matters_and_the_first_names_the_grid(make: Make, batch: dict[str, Tensor]) -> None:
    model = make(Segmentation(CLASSES, channels=4), inputs=("rgb", "depth")).eval()
    before = model.predict(**batch)
    assert before.shape == (4, CLASSES, 32, 32)
    after = model.predict(**{**batch, "depth": batch["depth"].flip(-1)})
    assert not torch.allclose(before, after)
    blind = batch["present"] & torch.tensor([True, False, True])
    assert model(**{**batch, "present": blind}).losses.counts == 3 * 32 * 32 - 5 * 32  # colors are enough
    assert model(**batch).losses.counts == 4 * 32 * 32 - 5 * 32  # and so is depth


@each_task
def test_images_may_have_another_size(task: DownstreamTask, make: Make, batch: dict[str, Tensor]) -> None:
    model = make(task).eval()
    larger = {**batch, "rgb": torch.nn.functional.pad(batch["rgb"], (0, 16, 0, 16))}
    shape = model.predict(**larger).shape
    assert shape[-2:] == (48, 48) if task.targets() else shape == (4, CLASSES)


def test_predictions_are_kept_in_evaluation_only(make: Make, batch: dict[str, Tensor]) -> None:
    model = make(Classification(CLASSES))
    predicted = model.eval()(**batch).predictions
    assert not predicted.values.requires_grad
    assert torch.equal(predicted.values, model.predict(**batch))
    assert torch.equal(predicted.truth, model.truth(batch))
    assert model.train()(**batch).predictions is None


def test_layers_lie_one_above_the_other(make: Make) -> None:
    model = make(Classification(CLASSES), inputs=("rgb", "depth"))
    depths = {name: model.depth_of(name) for name, _ in model.named_parameters()}
    assert depths["encoder.global_token"] == depths["encoder.embeddings.depth.weight"] == 0
    assert depths["encoder.blocks.0.norm1.weight"] == 1
    assert depths["encoder.blocks.3.mlp.fc2.bias"] == 4
    assert depths["head.norm.weight"] == depths["head.linear.bias"] == 5
    assert set(depths.values()) == set(range(6))


@each_task
def test_saved_model_loads_again(task: DownstreamTask, make: Make, batch: dict[str, Tensor], tmp_path: Path) -> None:
    model = make(task).eval()
    save_downstream(model, model.state_dict(), tmp_path / "run/model")
    loaded = load_downstream(tmp_path / "run").eval()
    assert loaded.task == task
    assert loaded.inputs == model.inputs
    assert torch.equal(loaded.predict(**batch), model.predict(**batch))


def test_folder_without_a_fine_tuned_model_is_named(small_mae: Callable[..., MultiModalMae], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"or a model's folder, got {re.escape(str(tmp_path))}"):
        load_downstream(tmp_path)
    small_mae().save_pretrained(tmp_path / "mae")  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"Expected a fine-tuned model, .*mae holds another one"):
        load_downstream(tmp_path / "mae")


@pytest.mark.parametrize(
    ("task", "inputs", "message"),
    [
        (
            Segmentation(CLASSES),
            ["rgb", "semseg"],
            "Expected inputs other than ['semseg'], the target, got ['rgb', 'semseg'].",
        ),
        (DepthEstimation(), ["depth"], "Expected inputs other than ['depth'], the target, got ['depth']."),
        (Classification(CLASSES), ["edges"], "['rgb', 'depth', 'semseg'], got ['edges']."),
    ],
    ids=["semseg", "depth", "unread"],
)
def test_inputs_that_cannot_be_are_named(
    task: DownstreamTask, inputs: list[str], message: str, small_mae: Callable[..., MultiModalMae]
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        DownstreamModel.from_mae(small_mae(depth=4), task, inputs)


def test_pictures_are_columns_of_the_samples(make: Make, batch: dict[str, Tensor]) -> None:
    model = make(Segmentation(CLASSES, channels=4)).eval()
    columns = prediction_columns(model, batch)
    assert {title: column.shape for title, column in columns.items()} == dict.fromkeys(
        ("input", "prediction", "target"), (4, 32, 32, 3)
    )
    assert prediction_sheet(model, batch).shape == (4 * 36, 3 * 36, 3)
    assert list(prediction_columns(make(Classification(CLASSES)), batch)) == ["input"]
