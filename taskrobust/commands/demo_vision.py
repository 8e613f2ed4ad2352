import shutil
from pathlib import Path
from typing import Annotated

from rich.console import Console

from taskrobust._io.paths import find_config
from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1
from taskrobust.reproduce.pair import conclude, train_pair
from taskrobust.training.config import DeviceConfig


def demo_vision(
    output: Path = Path("runs/demo-vision"),
    seed: Annotated[int, AT_LEAST_0] = 0,
    steps: Annotated[int | None, AT_LEAST_1] = None,
    device: DeviceConfig = DeviceConfig(),  # noqa: B008
) -> None:
    """Pre-train two small MM-MAEs on generated rooms, one with average and one with minimax weights, and compare them.

    The two runs train in parallel, with the settings of configs/vision/demo.yaml. The output folder then holds a table
    of the held-out risks (table.md, table.json), a plot of risks and weights over steps (risks_and_weights.png) and
    predictions of minimax (predictions.png). Takes about two minutes on two cores.

    Args:
        output: Folder of the rooms, the runs, their logs and the results. An interrupted demo resumes there.
        seed: Seed of both runs, which share initial parameters, batches, crops and masks.
        steps: Steps of each run. Defaults to those of the configuration.
        device: Device and precision of both runs. Options that are not given come from the configuration.
    """
    words = ("pretrain-mae", "--config", str(find_config("configs/vision/demo.yaml")))
    rooms = ("--scenes.folder", str(output / "scenes"))
    images = ("--train.folder", str(output / "scenes/train"), "--held_out.folder", str(output / "scenes/held-out"))
    weightings = {"average": "average", "minimax": "minimax"}
    folders = train_pair((*words, *rooms, *images), weightings, output, seed, steps, device)
    for last in sorted((folders["minimax"] / "pictures").glob("*.png"))[-1:]:
        shutil.copy(last, output / "predictions.png")
    conclude(folders, output, ("finetune-vision", "--config", "configs/vision/finetune/rooms-depth.yaml"))
    Console().print(f"Predictions: {output / 'predictions.png'}", soft_wrap=True)
