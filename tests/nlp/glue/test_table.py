from pathlib import Path

import numpy as np
import pytest

from taskrobust.nlp.glue.table import GlueTable, run_path
from taskrobust.nlp.glue.tasks import GLUE
from taskrobust.training.results import Result, write_results

VALUES = {"cola": 0.5, "sst2": 0.9, "mrpc": 0.8, "qqp": 0.7, "stsb": 0.6, "mnli": 0.75, "qnli": 0.85, "rte": 0.65}


def finish(output: Path, task: str, values: list[float]) -> None:
    """Write results as if the task had been fine-tuned with one seed per value."""
    for seed, value in enumerate(values):
        folder = run_path(output, task, seed)
        folder.mkdir(parents=True)
        names = GLUE[task].dev
        results = [
            Result(
                task=name,
                title=name,
                place=number,
                metric=GLUE[task].metrics[0],
                value=value - 0.02 * number,
                metrics=dict.fromkeys(GLUE[task].metrics, value),
                split=split,
                data="GLUE",
                model="last",
                step=7,
                seed=seed,
                pretrained="runs/minimax",
            )
            for number, (name, split) in enumerate(names.items())
        ]
        write_results(folder, results)


def test_table_has_medians_averages_and_the_worst_task(tmp_path: Path) -> None:
    for task, value in VALUES.items():
        finish(tmp_path, task, [value + 0.1, value, value - 0.3])
    table = GlueTable(tmp_path)
    assert {name: row.median for name, row in table.rows.items()} == pytest.approx(VALUES | {"mnli-mm": 0.73})
    assert table.averages == pytest.approx(
        {"avg8": np.mean([*VALUES.values()]), "avg9": np.mean([*VALUES.values(), 0.73])}
    )
    assert table.worst is not None
    assert table.worst.task == "cola"
    assert "| cola | matthews | 50.0 | 20.0 | 60.0 | 3 |" in table.markdown()
    assert "| avg9 |  | 72.0 |  |  |  |" in table.markdown()
    assert "| worst: cola |  | 50.0 |  |  |  |" in table.markdown()
    assert table.to_dict()["tasks"]["qqp"]["seeds"] == {"0": 0.7 + 0.1, "1": 0.7, "2": 0.7 - 0.3}


def test_worst_task_is_one_of_the_eight_even_if_mismatched_mnli_is_lower(tmp_path: Path) -> None:
    for task, value in VALUES.items():
        finish(tmp_path, task, [0.49 if task == "mnli" else value])
    table = GlueTable(tmp_path)
    assert min(table.rows, key=lambda name: table.rows[name].median) == "mnli-mm"
    assert table.worst is not None
    assert (table.worst.task, table.worst.median) == ("mnli", 0.49)
    assert "| worst: mnli |  | 49.0 |  |  |  |" in table.markdown()


def test_there_is_no_average_while_a_task_is_missing(tmp_path: Path) -> None:
    finish(tmp_path, "rte", [0.6])
    table = GlueTable(tmp_path)
    assert table.averages == {"avg8": None, "avg9": None}
    assert "avg" not in table.markdown()


def test_table_without_results_is_empty(tmp_path: Path) -> None:
    table = GlueTable(tmp_path / "none")
    assert (table.rows, table.worst) == ({}, None)


@pytest.mark.parametrize(("values", "seed"), [([0.5, 0.9, 0.7], 2), ([0.9, 0.5], 1), ([0.9, 0.8, 0.5, 0.6], 3)])
def test_median_seed_is_the_lower_one_in_the_middle(tmp_path: Path, values: list[float], seed: int) -> None:
    finish(tmp_path, "cola", values)
    assert GlueTable(tmp_path).rows["cola"].median_seed == seed
