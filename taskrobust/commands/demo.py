from pathlib import Path
from typing import Annotated

from taskrobust._io.paths import find_config
from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1
from taskrobust.reproduce.pair import conclude, train_pair
from taskrobust.training.config import DeviceConfig


def demo(
    output: Path = Path("runs/demo"),
    seed: Annotated[int, AT_LEAST_0] = 0,
    steps: Annotated[int | None, AT_LEAST_1] = None,
    device: DeviceConfig = DeviceConfig(),  # noqa: B008  # read only
) -> None:
    """Pre-train two small PoS-BERTs on generated text, one with average and one with minimax weights, and compare them.

    The two runs train in parallel, with the settings of configs/nlp/demo.yaml. The output folder then holds a table of
    the held-out risks (table.md, table.json) and a plot of risks and weights over steps (risks_and_weights.png). Takes
    about two minutes on two cores.

    Args:
        output: Folder of the corpus, the runs, their logs and the results. An interrupted demo resumes there.
        seed: Seed of both runs, which share initial parameters and batches. The masks are the same for all seeds.
        steps: Steps of each run. Defaults to those of the configuration.
        device: Device and precision of both runs. Options that are not given come from the configuration.
    """
    words = ("pretrain-bert", "--config", str(find_config("configs/nlp/demo.yaml")))
    corpus = ("--corpus.train", str(output / "corpus/train"), "--corpus.held_out", str(output / "corpus/held-out"))
    weightings = {"average of nine": "average", "minimax": "minimax"}
    folders = train_pair((*words, *corpus), weightings, output, seed, steps, device)
    conclude(folders, output, ("finetune-glue", "--glue", "miniature"))
