from pathlib import Path

from taskrobust._io.paths import find_config
from taskrobust.reproduce.pair import conclude, train_pair
from taskrobust.training.config import DeviceConfig


def demo(
    output: Path = Path("runs/demo"),
    seed: int = 0,
    steps: int | None = None,
    device: DeviceConfig = DeviceConfig(),  # noqa: B008  # read only
) -> None:
    """Pre-train two small PoS-BERTs on generated text, with average and with minimax weights, and compare them.

    The two runs train at the same time, as configs/nlp/demo.yaml says. Ends with a table of the held-out risks
    (table.md, table.json) and a plot of risks and weights over steps (risks_and_weights.png) in the output folder.
    Takes about two minutes on two cores.

    Args:
        output: Folder of the corpus, the runs, their logs and the results. An interrupted demo resumes there.
        seed: Seed of both runs: the same parameters and batches; the masks are the same for all seeds.
        steps: Steps of each run. None uses those of the configuration.
        device: Device and precision of both runs. Each has one thread, unless you choose another number.
    """
    words = ("pretrain-bert", "--config", str(find_config("configs/nlp/demo.yaml")))
    corpus = ("--corpus.train", str(output / "corpus/train"), "--corpus.held_out", str(output / "corpus/held-out"))
    folders = train_pair(
        (*words, *corpus), {"average of nine": "average", "minimax": "minimax"}, output, seed, steps, device
    )
    conclude(folders, output, ("finetune-glue", "--glue", "miniature"))
