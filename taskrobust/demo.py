import shutil
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

DEMO_VISION: dict[str, Any] = {
    "modalities": {
        "rgb": "Rgb",
        "depth": "Depth",
        "semseg": {"class_path": "SemSeg", "init_args": {"num_classes": 32}},
    },
    "scenes": {"folder": "runs/demo-vision/scenes", "train": 6000, "held_out": 500, "size": 72, "num_proc": 2},
    "train": {"class_path": "Scenes", "init_args": {"folder": "runs/demo-vision/scenes/train"}},
    "held_out": {"class_path": "Scenes", "init_args": {"folder": "runs/demo-vision/scenes/held-out"}},
    "mae": {
        "image_size": 64,
        "patch_size": 8,
        "width": 128,
        "depth": 4,
        "heads": 4,
        "decoder_width": 64,
        "decoder_depth": 1,
        "decoder_heads": 4,
        "visible": 32,
    },
    "crop": {"scale": [0.6, 1.0]},
    "risk": {"class_path": "RiskEstimator", "init_args": {"smoothing": 0.9}},
    "loop": {"steps": 400, "batch_size": 48, "log_every": 10, "eval_every": 200, "checkpoint_every": 200},
    "optim": {"lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.05, "schedule": "cosine", "warmup_steps": 40},
    "device": {"precision": "bf16"},
}
"""The run of the vision demo, as configs/vision/demo.yaml has it."""


def demo(output: Path = Path("runs/demo"), seed: int = 0, steps: int = 1200) -> None:
    """Pre-train two small PoS-BERTs on generated text, with average and with minimax weights, and compare them.

    Ends with a table of the held-out risks (table.md, table.json) and a plot of risks and weights over steps
    (risks_and_weights.png) in the output folder. Takes about two minutes on two cores.

    Args:
        output: Folder of the corpus, the runs and the results. A demo that was cut off goes on from there.
        seed: Seed of both runs: the same parameters and batches; the masks are the same for all seeds.
        steps: Steps of each run.
    """
    folders = {"train": str(output / "corpus/train"), "held_out": str(output / "corpus/held-out")}
    settings = DEMO | {"corpus": DEMO["corpus"] | folders, "loop": DEMO["loop"] | {"steps": steps, "seed": seed}}
    _compare("pretrain-bert", settings, {"average of nine": "Uniform", "minimax": "SoftmaxMinimax"}, output)


def demo_vision(output: Path = Path("runs/demo-vision"), seed: int = 0, steps: int = 400) -> None:
    """Pre-train two small Multi-Modal Mask MAEs on generated rooms, with average and with minimax weights.

    Ends as the demo on text does; pictures of what the models predict are in pictures/ of each run, the last one of
    minimax in predictions.png. Takes about three minutes on two cores.

    Args:
        output: Folder of the rooms, the runs and the results. A demo that was cut off goes on from there.
        seed: Seed of both runs: the same parameters, batches, crops and masks.
        steps: Steps of each run.
    """
    rooms = output / "scenes"
    settings = DEMO_VISION | {
        "scenes": DEMO_VISION["scenes"] | {"folder": str(rooms)},
        "train": {"class_path": "Scenes", "init_args": {"folder": str(rooms / "train")}},
        "held_out": {"class_path": "Scenes", "init_args": {"folder": str(rooms / "held-out")}},
        "loop": DEMO_VISION["loop"] | {"steps": steps, "seed": seed},
    }
    folders = _compare("pretrain-mae", settings, {"average": "Uniform", "minimax": "SoftmaxMinimax"}, output)
    for last in sorted((folders["minimax"] / "pictures").glob("*.png"))[-1:]:
        shutil.copy(last, output / "predictions.png")
        Console().print(f"Predictions: {output / 'predictions.png'}")


def _compare(command: str, settings: dict[str, Any], weightings: dict[str, str], output: Path) -> dict[str, Path]:
    """Run a command with several weightings and compare the runs; their folders, by label."""
    console = Console()
    started = time.perf_counter()
    seed = settings["loop"]["seed"]
    folders = {label: output / f"{weighting}-seed{seed}" for label, weighting in weightings.items()}
    for label, weighting in weightings.items():
        console.rule(label)
        run(command, settings | {"weighting": weighting, "output": str(folders[label])})
    records = [read_run(folder, label) for label, folder in folders.items()]
    table = HeldOutTable(records)
    table.save(output)
    plot_risks_and_weights(records, output / "risks_and_weights.png")
    console.print(table.rich())
    console.print(f"{time.perf_counter() - started:.0f} s. Table: {output / 'table.md'}, {output / 'table.json'}")
    console.print(f"Risks and weights over steps: {output / 'risks_and_weights.png'}")
    return folders
