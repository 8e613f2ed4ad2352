from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest

from taskrobust import SoftmaxMinimax
from taskrobust._io.settings import MAY_CHANGE, Range, changeable, plain, recorded
from taskrobust.commands.pretrain_bert import BertShape
from taskrobust.commands.pretrain_mae import CropConfig, MaeShape
from taskrobust.training.config import DeviceConfig, LoopConfig, OptimConfig, RunConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoopConfig(steps=0), "Expected a value of at least 1 for loop.steps, got 0."),
        (lambda: LoopConfig(steps=-3), "Expected a value of at least 1 for loop.steps, got -3."),
        (lambda: LoopConfig(epochs=0.0), "Expected a value above 0 for loop.epochs, got 0.0."),
        (lambda: LoopConfig(batch_size=0), "Expected a value of at least 1 for loop.batch_size, got 0."),
        (lambda: LoopConfig(workers=-1), "Expected a value of at least 0 for loop.workers, got -1."),
        (lambda: OptimConfig(lr=float("nan")), "Expected a value of at least 0 for optim.lr, got nan."),
        (lambda: OptimConfig(weight_decay=-1.0), "Expected a value of at least 0 for optim.weight_decay, got -1.0."),
        (lambda: OptimConfig(clip_norm=-1.0), "Expected a value of at least 0 for optim.clip_norm, got -1.0."),
        (lambda: OptimConfig(warmup_steps=-5), "Expected a value of at least 0 for optim.warmup_steps, got -5."),
        (
            lambda: OptimConfig(ema_decay=7.0),
            "of at least 0 and below 1 for optim.ema_decay, got 7.0.",
        ),
        (lambda: OptimConfig(betas=(0.9, 1.0)), "of at least 0 and below 1 for optim.betas, got (0.9, 1.0)."),
        (
            lambda: OptimConfig(layer_decay=0.0),
            "a value above 0 and at most 1 for optim.layer_decay, got 0.0.",
        ),
        (lambda: DeviceConfig(threads=0), "Expected a value of at least 1 for device.threads, got 0."),
        (lambda: BertShape(layers=0), "Expected a value of at least 1 for bert.layers, got 0."),
        (lambda: BertShape(dropout=1.0), "Expected a value of at least 0 and below 1 for bert.dropout, got 1.0."),
        (lambda: MaeShape(visible=0), "Expected a value of at least 1 for mae.visible, got 0."),
        (lambda: CropConfig(flip=2.0), "Expected a value of at least 0 and at most 1 for crop.flip, got 2.0."),
    ],
)
def test_numbers_out_of_range_are_an_error_that_names_option_value_and_range(
    make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ValueError, match="Expected") as error:
        make()
    assert message in str(error.value)


def test_defaults_are_within_their_ranges() -> None:
    for config in (LoopConfig, OptimConfig, DeviceConfig, BertShape, MaeShape, CropConfig):
        config()


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (Range(1), [1, 2, 1e300], [0, 0.999, float("nan"), float("inf")]),
        (Range(0, open=True), [1e-9], [0, -1]),
        (Range(0, 1), [0, 1], [-0.1, 1.1]),
        (Range(0, 1, below=True), [0, 0.999], [1]),
    ],
)
def test_ranges_have_the_ends_that_they_say(allowed: Range, inside: list[float], outside: list[float]) -> None:
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)


class Data:
    def __init__(self, size: int, root: Annotated[Path, MAY_CHANGE] = Path("data")) -> None:
        self.size, self.root = size, root


@dataclass
class Group:
    speed: Annotated[int, MAY_CHANGE] = 1
    seed: int = 0


def command(data: Callable[[int], Data], group: Group, output: Annotated[Path, MAY_CHANGE], run: RunConfig) -> None:
    """A command."""


def test_settings_that_may_change_are_found_in_parameters_groups_classes_and_the_run() -> None:
    arguments = {
        "data": partial(Data, 3, root=Path("here")),
        "group": Group(),
        "output": Path("out"),
        "run": RunConfig(),
    }
    settings = recorded(arguments | {"resolved": None})
    assert settings["data"] == {"class_path": f"{__name__}.Data", "init_args": {"root": "here"}}
    assert settings["loop"]["batch_size"] == 32
    found = changeable(command, settings)
    assert {"output", "group.speed", "data.init_args.root", "loop.batch_size", "loop.workers", "resume"} <= found
    assert not {"group.seed", "loop.steps", "optim.lr", "data.init_args.size"} & found


def test_instances_are_their_class_and_its_settings() -> None:
    assert plain(SoftmaxMinimax(alpha=2.0)) == {
        "class_path": "taskrobust.weighting.softmax_minimax.SoftmaxMinimax",
        "init_args": {"alpha": 2.0, "relative": True, "hard": False},
    }
    assert plain({"a": (1, Path("b")), "c": None}) == {"a": [1, "b"], "c": None}
