import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskrobust.training.results import Result, write_results
from taskrobust.training.run_folder import FORMAT

TITLES = {"mnli": "MNLI", "mnli-mm": "MNLI-mm", "qqp": "QQP", "qnli": "QNLI", "sst2": "SST-2", "cola": "CoLA"}
TITLES |= {"stsb": "STS-B", "mrpc": "MRPC", "rte": "RTE", "classification": "Cls", "semseg": "Semseg", "depth": "Depth"}


@pytest.fixture
def write_pretraining(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder of pre-training, as the engine leaves it."""

    def write(name: str, risks: dict[str, float | None], seed: int = 0, strategy: str = "Uniform", **more: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        weighted = [task for task in risks if task != "nsp"]
        known = {task: risk for task, risk in risks.items() if risk is not None}
        lines: list[dict[str, Any]] = [
            {
                "step": step,
                "split": "train",
                "samples": 8 * step,
                "loss": 1.0,
                "risks": {task: risk + 4 / step for task, risk in known.items()}
                | {task: None for task in risks.keys() - known},
                "weights": {task: 1 / len(weighted) for task in weighted},
                "effective_tasks": float(len(weighted)),
                "samples_per_second": 100.0 * step,
            }
            for step in (10, 20, 30)
        ]
        worst = max(weighted, key=lambda task: risks[task] or 0.0)
        last = {"step": more.get("step", 30), "split": "held_out", "risks": risks, "mean": 7.0, "worst": 7.0}
        lines.append(last | {"worst_task": worst, "best": True})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        config = {"weighting": {"class_path": strategy}, "loop": {"seed": seed, "steps": 30}, "output": name}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return write


@pytest.fixture
def write_scores(tmp_path: Path) -> Callable[..., Path]:
    """Writes the results.json of a fine-tuning, and its config.yaml where there are settings."""

    def write(
        name: str, scores: dict[str, float], seed: int = 0, settings: dict[str, Any] | None = None, **more: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        fields = {
            "metric": "accuracy",
            "split": "test",
            "model": "best",
            "step": 5,
            "data": "GLUE",
            "pretrained": "runs/a",
        } | more
        results = [
            Result(
                task=task,
                title=TITLES.get(task, task),
                place=[*TITLES, task].index(task),
                counted=task != "mnli-mm",
                value=score,
                metrics={},
                seed=seed,
                **fields,
            )
            for task, score in scores.items()
        ]
        write_results(folder, results)
        if settings is not None:
            (folder / "config.yaml").write_text(yaml.safe_dump(settings))
            about = {"format": FORMAT, "command": "finetune-vision", "may_change": ["output"]}
            (folder / "run.json").write_text(json.dumps(about))
        return folder

    return write
