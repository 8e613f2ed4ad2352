"""Measures the paper's Table 3: the cost that a weighting adds to a training step."""

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
from rich.progress import track
from torch import Tensor

from taskrobust._io.settings import AT_LEAST_1
from taskrobust._io.tables import markdown_table
from taskrobust.commands.pretrain_mae import MaeShape
from taskrobust.loss import MultiTaskLoss
from taskrobust.report.render import show_table
from taskrobust.training.config import DeviceConfig, OptimConfig
from taskrobust.training.device import resolve_device
from taskrobust.training.optim import make_optimizer
from taskrobust.training.results import StepCost, write_cost
from taskrobust.vision.modalities import Depth, Modality, Rgb, SemSeg
from taskrobust.weighting import make_weighting

STRATEGIES = {
    "average": "uniform",
    "uncertainty": "uncertainty",
    "gradnorm": "grad_norm",
    "dwa": "dwa",
    "minimax": "softmax_minimax",
}
_WARM_UP = 2


def step_cost(
    output: Path,
    *,
    weightings: list[str] | None = None,
    mae: MaeShape = MaeShape(),  # noqa: B008  # read only
    batch_size: Annotated[int, AT_LEAST_1] = 8,
    steps: Annotated[int, AT_LEAST_1] = 10,
    device: DeviceConfig = DeviceConfig(),  # noqa: B008
) -> None:
    """Measure the floating-point operations and the time of an MM-MAE pre-training step with each weighting.

    The images are noise, which does not affect the time. Steps of the weightings alternate, so that a machine that
    slows down for a while affects all of them.

    Args:
        output: Folder of table.md and of a subfolder with cost.json for each weighting.
        weightings: Weightings among average, uncertainty, gradnorm, dwa and minimax. Defaults to all.
        mae: Size of the model.
        batch_size: Images per step.
        steps: Number of timed steps, of which the median is reported.
        device: Device and precision.

    Raises:
        ValueError: If a weighting is unknown.
    """
    from taskrobust.training.distributed import make_accelerator

    if weightings is None:
        weightings = list(STRATEGIES)
    unknown = [name for name in weightings if name not in STRATEGIES]
    if unknown:
        raise ValueError(f"Expected weightings among {list(STRATEGIES)}, got {unknown}.")
    compute = resolve_device(device)
    accelerator = make_accelerator(compute)
    batch = {name: tensor.to(accelerator.device) for name, tensor in _noise(batch_size, mae.image_size).items()}
    synchronize = torch.accelerator.synchronize if accelerator.device.type != "cpu" else nullcontext
    step = {name: _step(name, mae, batch, accelerator.autocast, accelerator.device) for name in weightings}
    flops = {name: _operations(step[name]) for name in weightings}
    times: dict[str, list[float]] = {name: [] for name in weightings}
    for number in track(range(_WARM_UP + steps), "steps", transient=True):
        for name in weightings:
            synchronize()
            start = time.perf_counter()
            step[name]()
            synchronize()
            if number >= _WARM_UP:
                times[name].append(time.perf_counter() - start)
    where = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else _processor()
    where = f"{where}, {compute.precision}"
    costs = {name: StepCost(flops[name], statistics.median(times[name]), batch_size, where) for name in weightings}
    for name, cost in costs.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        write_cost(output / name, cost)
    header = ["weighting", "GFLOPs per step", f"of {weightings[0]}", "ms per step", f"of {weightings[0]}"]
    (output / "table.md").write_text(markdown_table(header, _rows(costs)))
    show_table(header, _rows(costs), f"A step of {batch_size} images on {where}")


def _step(
    name: str, mae: MaeShape, batch: dict[str, Tensor], autocast: Callable[[], object], device: torch.device
) -> Callable[[], None]:
    from taskrobust.vision.mae.model import MultiModalMae

    torch.manual_seed(0)
    modalities: dict[str, Modality] = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg()}
    model = MultiModalMae(modalities, **asdict(mae)).to(device)
    criterion = MultiTaskLoss(model.tasks, make_weighting(STRATEGIES[name])).to(device)
    optimizer = make_optimizer(model, criterion, OptimConfig())

    def step() -> None:
        with autocast():  # type: ignore[attr-defined]
            outputs = model(**batch)
        criterion(outputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _operations(step: Callable[[], None]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def _noise(images: int, size: int) -> dict[str, Tensor]:
    return {
        "rgb": torch.randint(256, (images, 3, size, size), dtype=torch.uint8),
        "depth": 0.5 + 5 * torch.rand(images, 1, size, size),
        "semseg": torch.randint(133, (images, size // 4, size // 4), dtype=torch.uint8),
        "present": torch.ones(images, 3, dtype=torch.bool),
        "mask_keys": torch.randint(-(2**62), 2**62, (images,)),
    }


def _processor() -> str:
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _rows(costs: dict[str, StepCost]) -> list[list[str]]:
    first = next(iter(costs.values()))
    return [
        [
            name,
            f"{cost.flops_per_step / 1e9:.1f}",
            f"{cost.flops_per_step / first.flops_per_step:.3f}",
            f"{cost.seconds_per_step * 1e3:.1f}",
            f"{cost.seconds_per_step / first.seconds_per_step:.3f}",
        ]
        for name, cost in costs.items()
    ]
