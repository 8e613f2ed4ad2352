import json
from dataclasses import replace
from pathlib import Path

import pytest

from taskrobust.training.results import RESULTS, Result, read_results, write_results

RESULT = Result(
    task="cola",
    title="CoLA",
    place=5,
    metric="matthews",
    value=0.5,
    metrics={"matthews": 0.5, "accuracy": 0.75},
    split="dev",
    data="GLUE",
    model="last",
    step=10,
    seed=1,
    pretrained="runs/minimax",
)


def test_results_come_back(tmp_path: Path) -> None:
    write_results(tmp_path, [RESULT, RESULT])
    assert read_results(tmp_path) == [RESULT, RESULT]
    assert [file.name for file in tmp_path.iterdir()] == [RESULTS]


def test_other_fields_are_an_error_that_names_file_and_row(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text(json.dumps([{"task": "cola"}]))
    with pytest.raises(ValueError, match=r"^Expected the fields \['counted', .*\] in result 0 of .*results.json, got"):
        read_results(tmp_path)


def test_torn_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text("[{")
    with pytest.raises(ValueError, match=r"^Expected JSON in .*results.json: "):
        read_results(tmp_path)


def test_texts_of_results_cannot_command_a_terminal(tmp_path: Path) -> None:
    write_results(tmp_path, [replace(RESULT, title="CoLA\x1b[2J\x07", data="G\nLUE")])
    (result,) = read_results(tmp_path)
    assert (result.title, result.data) == ("CoLA[2J", "GLUE")
