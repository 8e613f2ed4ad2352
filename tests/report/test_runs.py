import json
from collections.abc import Callable
from pathlib import Path

import pytest

from taskrobust.report.runs import find_source, find_sources, labeled_folders

Write = Callable[..., Path]


def test_a_bare_folder_is_labeled_by_its_name_without_the_seed(tmp_path: Path) -> None:
    folders = labeled_folders([f"{tmp_path}/minimax-seed0", f"{tmp_path}/minimax-seed1/", f"best={tmp_path}/dwa"])
    assert folders == {
        "minimax": [tmp_path / "minimax-seed0", tmp_path / "minimax-seed1"],
        "best": [tmp_path / "dwa"],
    }


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected LABEL=FOLDER or a folder, there is no folder .*nowhere for 'a'\."):
        find_sources([f"a={tmp_path}/nowhere"])


def test_runs_are_found_at_any_depth_and_once(write_pretraining: Write, write_scores: Write, tmp_path: Path) -> None:
    first = write_pretraining("all/pre/seed0", {"rgb": 1.0, "depth": 2.0})
    write_pretraining("all/pre/seed1", {"rgb": 1.0, "depth": 2.0}, seed=1)
    write_scores("all/fine/semseg", {"semseg": 0.5})
    source = find_source("x", [tmp_path / "all", first])
    assert [folder.name for folder in source.pretraining] == ["seed0", "seed1"]
    assert [(folder.name, result.task) for folder, result in source.results] == [("semseg", "semseg")]


def test_unfinished_runs_are_left_out_with_a_message(write_pretraining: Write, tmp_path: Path) -> None:
    complete = write_pretraining("all/complete", {"rgb": 1.0, "depth": 2.0})
    early = write_pretraining("all/early", {"rgb": 1.0, "depth": 2.0})
    (early / "metrics.jsonl").write_text(
        (complete / "metrics.jsonl").read_text().splitlines(keepends=True)[0] + '{"step'
    )
    write_pretraining("all/fine", {"semseg": 1.0})
    source = find_source("x", [tmp_path / "all"])
    assert list(source.pretraining) == [complete]
    assert source.left_out == [
        f"x: {early} was not evaluated yet and is left out.",
        f"x: the fine-tuning in {tmp_path / 'all/fine'} is not finished and left out.",
    ]


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"Expected a run in .*: a folder with metrics\.jsonl and config\.yaml, or with"
    ):
        find_source("x", [tmp_path])


def test_labels_without_runs_are_left_out_on_request(
    write_pretraining: Write, write_scores: Write, tmp_path: Path
) -> None:
    early = write_pretraining("early", {"semseg": 1.0})
    runs = [f"first={tmp_path}/nowhere", f"a={write_scores('a', {'rte': 0.5})}", f"b={early}", f"a={tmp_path}/gone"]
    sources, warnings = find_sources(runs, warn=True)
    assert [source.label for source in sources] == ["a"]
    expected = "a folder with metrics.jsonl and config.yaml, or with results.json; got none"
    assert warnings == [
        f"first is left out. Expected a run in {tmp_path}/nowhere: {expected}.",
        f"a: there is no folder {tmp_path}/gone.",
        f"b is left out. Expected a run in {early}: {expected} (b: the fine-tuning in {early} is not finished and "
        "left out.).",
    ]
    with pytest.raises(ValueError, match=r"first is left out\. Expected a run in .* b is left out\."):
        find_sources([runs[0], runs[2]], warn=True)


def test_runs_of_two_weightings_under_one_label_are_an_error(write_pretraining: Write, tmp_path: Path) -> None:
    write_pretraining("all/a", {"rgb": 1.0, "depth": 2.0})
    write_pretraining("all/b", {"rgb": 1.0, "depth": 2.0}, strategy="DWA")
    with pytest.raises(
        ValueError, match=r"under the label 'all' that differ in the seed only, got weighting .*Uniform.*DWA"
    ):
        find_source("all", [tmp_path / "all"])


def test_a_broken_line_is_named(write_pretraining: Write) -> None:
    folder = write_pretraining("a", {"rgb": 1.0, "depth": 2.0})
    (folder / "metrics.jsonl").write_text('{"step": 1, "split": "test"}\n{oops\n')
    with pytest.raises(ValueError, match=r"Expected the metrics of a run in line 2 in .*metrics\.jsonl: Expecting"):
        find_source("x", [folder])


def test_unreadable_results_name_file_and_field(write_scores: Write) -> None:
    folder = write_scores("a", {"rte": 0.5})
    rows = json.loads((folder / "results.json").read_text())
    del rows[0]["split"]
    (folder / "results.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"Expected the fields .*'split'.* in result 0 of .*results\.json"):
        find_source("x", [folder])


def test_a_cost_of_other_fields_is_named(tmp_path: Path) -> None:
    (tmp_path / "cost.json").write_text('{"flops_per_step": 1}')
    with pytest.raises(ValueError, match=r"Expected the fields \['batch_size', 'device'.*cost\.json, got"):
        find_source("x", [tmp_path])
