"""The curves of twenty steps of both pre-trainings, as they were when they were last looked at.

The numbers change if the data, the masks, the initialization, a model, a loss or the weighting do. If that is meant,
`pytest tests/commands/test_golden.py` prints the new ones.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from taskrobust.cli import run

TOLERANCE = 2e-3  # between kinds of CPUs, whose sums differ in the last bits

LOOP = {"steps": 20, "batch_size": 8, "log_every": 10, "eval_every": 20, "checkpoint_every": 20}
COMMON: dict[str, Any] = {
    "loop": LOOP,
    "optim": {"lr": 1e-3, "warmup_steps": 5},
    "device": {"device": "cpu", "precision": "fp32", "threads": 1},
    "trackers": [],
}


POS_BERT = {
    "loss": [6.388, 6.2869],
    "weights": [0.1572, 0.1584, 0.0784, 0.142, 0.1218, 0.1207, 0.1426, 0.0635, 0.0155],
    "held-out risks": [5.6458, 5.6843, 5.6185, 5.2434, 5.7417, 5.7518, 5.6273, 5.6094, 5.6909, 0.6691],
}
MULTI_MODAL_MAE = {
    "loss": [3.3666, 3.0889],
    "weights": [0.0174, 0.0264, 0.9562],
    "held-out risks": [0.9161, 1.069, 3.0688],
}


def curve(folder: Path) -> dict[str, list[float]]:
    """Held-out risks at the end, and total and weights in the steps, rounded."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if line["split"] == "train"]
    return {
        "loss": [round(line["loss"], 4) for line in training],
        "weights": [round(weight, 4) for weight in training[-1]["weights"].values()],
        "held-out risks": [round(risk, 4) for risk in lines[-1]["risks"].values()],
    }


def assert_close(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    print(found)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=TOLERANCE, abs=TOLERANCE), name


def test_pos_bert(tmp_path: Path) -> None:
    run(
        "pretrain-bert",
        COMMON
        | {
            "corpus": {
                "train": str(tmp_path / "train"),
                "held_out": str(tmp_path / "held-out"),
                "train_source": "grammar",
                "held_out_source": "grammar",
                "documents": 100,
                "held_out_documents": 20,
                "vocab_size": 300,
                "sequence_length": 32,
            },
            "bert": {"layers": 2, "hidden": 32, "heads": 2, "dropout": 0.0},
            "risk": {"class_path": "RiskEstimator", "init_args": {"smoothing": 0.9}},
            "output": str(tmp_path / "run"),
        },
    )
    assert_close(curve(tmp_path / "run"), POS_BERT)


def test_multi_modal_mae(tmp_path: Path) -> None:
    train, held_out = (
        {"class_path": "Scenes", "init_args": {"folder": str(tmp_path / "rooms" / split)}}
        for split in ("train", "held-out")
    )
    run(
        "pretrain-mae",
        COMMON
        | {
            "scenes": {"folder": str(tmp_path / "rooms"), "train": 24, "held_out": 8, "size": 36},
            "modalities": {
                "rgb": "Rgb",
                "depth": "Depth",
                "semseg": {"class_path": "SemSeg", "init_args": {"num_classes": 32}},
            },
            "train": train,
            "held_out": held_out,
            "mae": {
                "image_size": 32,
                "patch_size": 8,
                "width": 32,
                "depth": 2,
                "heads": 2,
                "decoder_width": 16,
                "decoder_depth": 1,
                "decoder_heads": 2,
                "visible": 12,
            },
            "pictures": 0,
            "output": str(tmp_path / "run"),
        },
    )
    assert_close(curve(tmp_path / "run"), MULTI_MODAL_MAE)
