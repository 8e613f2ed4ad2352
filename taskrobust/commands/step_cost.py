"""The paper's Table 3, measured: what a way of weighing tasks adds to a training step."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from taskrobust.commands.pretrain_mae import MaeShape
from taskrobust.loss import MultiTaskLoss
from taskrobust.training.config import DeviceConfig, OptimConfig
from taskrobust.training.device import resolve_device
from taskrobust.training.optim import make_optimizer
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


@dataclass(frozen=True)
class Cost:
    """What a training step costs.

    Args:
        flops_per_step: Floating-point operations of matrix products, convolutions and attention, forward and backward.
        seconds_per_step: Median time.
        batch_size: Images in the step.
        device: Where it was measured, and in which precision.
    """

    flops_per_step: int
    seconds_per_step: float
    batch_size: int
    device: str


def step_cost(
    output: Path,
    *,
    weightings: list[str] | None = None,
    mae: MaeShape = MaeShape(),  # noqa: B008  # read only
    batch_size: int = 8,
    steps: int = 10,
    device: DeviceConfig = DeviceConfig(),  # noqa: B008
) -> None:
    """Measure a pre-training step of Multi-Modal Mask MAE with each weighting: operations and time.

    Colors, depth and labels are noise; the time of a step does not depend on them. The steps of the weightings
    alternate, so that a machine that is slow for a while is so for all.

    Args:
        output: Folder of a folder with cost.json for each weighting, and of table.md.
        weightings: The weightings, among average, uncertainty, gradnorm, dwa and minimax. None takes all.
        mae: The size of the model.
        batch_size: Images in a step.
        steps: Steps of which the median is taken.
        device: Device and precision.

    Raises:
        ValueError: If a weighting is not among those.
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
    costs = {name: Cost(flops[name], statistics.median(times[name]), batch_size, where) for name in weightings}
    for name, cost in costs.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        (output / name / "cost.json").write_text(json.dumps(asdict(cost), indent=2) + "\n")
    (output / "table.md").write_text(_markdown(costs))
    Console().print(_table(costs))


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


def _rows(costs: dict[str, Cost]) -> list[list[str]]:
    plain = next(iter(costs.values()))
    return [
        [
            name,
            f"{cost.flops_per_step / 1e9:.1f}",
            f"{cost.flops_per_step / plain.flops_per_step:.3f}",
            f"{cost.seconds_per_step * 1e3:.1f}",
            f"{cost.seconds_per_step / plain.seconds_per_step:.3f}",
        ]
        for name, cost in costs.items()
    ]


def _columns(costs: dict[str, Cost]) -> list[str]:
    first = next(iter(costs))
    return ["weighting", "GFLOPs a step", f"of {first}", "ms a step", f"of {first}"]


def _markdown(costs: dict[str, Cost]) -> str:
    lines = [_columns(costs), ["---", *["---:"] * 4], *_rows(costs)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _table(costs: dict[str, Cost]) -> Table:
    cost = next(iter(costs.values()))
    table = Table(title=f"A step of {cost.batch_size} images on {cost.device}")
    for number, column in enumerate(_columns(costs)):
        table.add_column(column, justify="right" if number else "left")
    for row in _rows(costs):
        table.add_row(*row)
    return table
