import shutil
from pathlib import Path

from rich.console import Console

from taskrobust._io.paths import find_config
from taskrobust.reproduce.pair import conclude, train_pair
from taskrobust.training.config import DeviceConfig


def demo_vision(
    output: Path = Path("runs/demo-vision"),
    seed: int = 0,
    steps: int | None = None,
    device: DeviceConfig = DeviceConfig(),  # noqa: B008
) -> None:
    """Pre-train two small Multi-Modal Mask MAEs on generated rooms, with average and with minimax weights.

    The two runs train at the same time, as configs/vision/demo.yaml says. Ends as the demo on text does; pictures of
    what the models predict are in pictures/ of each run, the last one of minimax in predictions.png. Takes about two
    minutes on two cores.

    Args:
        output: Folder of the rooms, the runs, their logs and the results. An interrupted demo resumes there.
        seed: Seed of both runs: the same parameters, batches, crops and masks.
        steps: Steps of each run. None uses those of the configuration.
        device: Device and precision of both runs. Each has one thread, unless you choose another number.
    """
    words = ("pretrain-mae", "--config", str(find_config("configs/vision/demo.yaml")))
    rooms = ("--scenes.folder", str(output / "scenes"))
    images = ("--train.folder", str(output / "scenes/train"), "--held_out.folder", str(output / "scenes/held-out"))
    command = (*words, *rooms, *images)
    folders = train_pair(command, {"average": "average", "minimax": "minimax"}, output, seed, steps, device)
    for last in sorted((folders["minimax"] / "pictures").glob("*.png"))[-1:]:
        shutil.copy(last, output / "predictions.png")
    conclude(folders, output, ("finetune-vision", "--config", "configs/vision/finetune/rooms-depth.yaml"))
    Console().print(f"Predictions: {output / 'predictions.png'}", soft_wrap=True)
