import time
from pathlib import Path
from typing import Any

from rich.console import Console

from taskrobust.cli import run
from taskrobust.reporting.plots import plot_risks_and_weights
from taskrobust.reporting.runs import read_run
from taskrobust.reporting.tables import HeldOutTable

DEMO: dict[str, Any] = {
    "corpus": {
        "train": "runs/demo/corpus/train",
        "held_out": "runs/demo/corpus/held-out",
        "train_source": "grammar",
        "held_out_source": "grammar",
        "documents": 12000,
        "held_out_documents": 600,
        "vocab_size": 1200,
        "sequence_length": 32,
    },
    "bert": {"layers": 2, "hidden": 128, "heads": 4, "dropout": 0.0},
    "risk": {"class_path": "RiskEstimator", "init_args": {"smoothing": 0.9}},
    "loop": {"steps": 1200, "batch_size": 64, "log_every": 20, "eval_every": 600, "checkpoint_every": 600},
    "optim": {"lr": 1e-3, "warmup_steps": 60},
    "device": {"precision": "bf16"},
}
"""The run of the demo, as configs/nlp/demo.yaml has it."""

WEIGHTINGS = {"average of nine": "Uniform", "minimax": "SoftmaxMinimax"}


def demo(output: Path = Path("runs/demo"), seed: int = 0, steps: int = 1200) -> None:
    """Pre-train two small PoS-BERTs on generated text, with average and with minimax weights, and compare them.

    Ends with a table of the held-out risks (table.md, table.json) and a plot of risks and weights over steps
    (risks_and_weights.png) in the output folder. Takes about two minutes on two cores.

    Args:
        output: Folder of the corpus, the runs and the results. A demo that was cut off goes on from there.
        seed: Seed of both runs: the same parameters and batches; the masks are the same for all seeds.
        steps: Steps of each run.
    """
    console = Console()
    started = time.perf_counter()
    records = []
    for label, weighting in WEIGHTINGS.items():
        folder = output / f"{weighting}-seed{seed}"
        console.rule(label)
        settings = DEMO | {
            "corpus": DEMO["corpus"]
            | {"train": str(output / "corpus/train"), "held_out": str(output / "corpus/held-out")},
            "loop": DEMO["loop"] | {"steps": steps, "seed": seed},
            "weighting": weighting,
            "output": str(folder),
        }
        run("pretrain-bert", settings)
        records.append(read_run(folder, label))
    table = HeldOutTable(records)
    table.save(output)
    plot_risks_and_weights(records, output / "risks_and_weights.png")
    console.print(table.rich())
    console.print(f"{time.perf_counter() - started:.0f} s. Table: {output / 'table.md'}, {output / 'table.json'}")
    console.print(f"Risks and weights over steps: {output / 'risks_and_weights.png'}")
