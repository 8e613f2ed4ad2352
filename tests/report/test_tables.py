import json
from pathlib import Path

import pytest

from taskrobust.report.render import markdown
from taskrobust.report.runs import read_run
from taskrobust.report.tables import held_out_table
from taskrobust.reproduce.pair import conclude


def write_run(folder: Path, risks: dict[str, float]) -> Path:
    worst = max(risks, key=lambda task: risks[task])
    mean = sum(risks.values()) / len(risks)
    train = {"split": "train", "samples": 8, "samples_per_second": 1.0}
    lines = [
        {**train, "step": 1, "risks": dict.fromkeys(risks, 3.0) | {"verb": None}, "weights": risks},
        {**train, "step": 2, "risks": risks, "weights": risks},
        {
            "step": 1,
            "split": "held_out",
            "risks": dict.fromkeys(risks, 9.0),
            "mean": 9,
            "worst": 9,
            "worst_task": "noun",
        },
        {"step": 2, "split": "held_out", "risks": risks, "mean": mean, "worst": risks[worst], "worst_task": worst},
    ]
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {
        "average": write_run(tmp_path / "a", {"noun": 2.0, "verb": 1.0}),
        "minimax": write_run(tmp_path / "b", {"noun": 1.5, "verb": 1.75}),
    }


def test_markdown_holds_the_last_evaluation_of_each_run(folders: dict[str, Path]) -> None:
    records = [read_run(folder, label) for label, folder in folders.items()]
    assert markdown(held_out_table(records)) == (
        "|  | average | minimax |\n"
        "| --- | ---: | ---: |\n"
        "| noun | 2.000 | **1.500** |\n"
        "| verb | **1.000** | 1.750 |\n"
        "| mean | **1.500** | 1.625 |\n"
        "| worst | 2.000 | **1.750** |\n"
        "| worst task | noun | verb |\n"
    )


def test_json_of_a_demo_holds_the_values_unrounded(folders: dict[str, Path], tmp_path: Path) -> None:
    conclude(folders, tmp_path, ["finetune-glue"])
    assert json.loads((tmp_path / "table.json").read_text())["minimax"]["risks"] == {"noun": 1.5, "verb": 1.75}


def test_folder_without_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a run folder with metrics\.jsonl, got "):
        read_run(tmp_path, "x")


def test_run_without_evaluation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "test"}\n')
    with pytest.raises(ValueError, match="evaluated at least once"):
        read_run(tmp_path, "x")
