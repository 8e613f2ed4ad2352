from collections.abc import Callable
from pathlib import Path

import pytest

from taskrobust.report.comparison import Comparison, compare_risks, compare_scores
from taskrobust.report.render import json_value
from taskrobust.report.runs import Source, find_source
from taskrobust.report.tables import comparison_table, cost_table
from taskrobust.report.verdict import details, headline

Write = Callable[..., Path]

EIGHT = ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
# The paper's Table 1, in its order, and its published averages.
TABLE_1 = {
    "bert": (84.6, 71.2, 90.5, 93.5, 52.2, 85.8, 88.9, 66.4),
    "minimax": (85.6, 76.9, 88.6, 91.3, 61.4, 84.2, 88.2, 70.7),
}


def scores_of(sources: list[Source]) -> Comparison:
    compared = compare_scores(sources, sources[0].label, "mean")
    assert compared is not None
    return compared


def risks_of(sources: list[Source]) -> Comparison:
    compared = compare_risks(sources, sources[0].label, "mean")
    assert compared is not None
    return compared


def rows(compared: Comparison) -> dict[str, list[object]]:
    value = json_value(comparison_table(compared, "x", "X"))
    return {name: [cell["value"] for cell in cells.values()] for name, cells in value["rows"].items()}


@pytest.fixture
def glue(write_scores: Write, tmp_path: Path) -> list[Source]:
    for label, row in TABLE_1.items():
        scores = {task: score / 100 for task, score in zip(EIGHT, row, strict=True)}
        write_scores(label, scores | {"mnli-mm": scores["mnli"] - 0.01})
    return [find_source(label, [tmp_path / label]) for label in TABLE_1]


def test_glue_has_the_order_and_the_averages_of_table_1(glue: list[Source]) -> None:
    table = rows(scores_of(glue))
    assert list(table)[:9] == ["MNLI", "MNLI-mm", "QQP", "QNLI", "SST-2", "CoLA", "STS-B", "MRPC", "RTE"]
    assert table["avg8"] == pytest.approx([sum(row) / 8 for row in TABLE_1.values()])
    assert table["avg9"] == pytest.approx([(sum(row) + row[0] - 1) / 9 for row in TABLE_1.values()])
    assert table["lowest score"] == pytest.approx([52.2, 61.4])
    assert table["task of the lowest score"] == ["CoLA", "CoLA"]
    assert table["gain in the lowest score"] == [None, pytest.approx(9.2)]
    assert table["smallest gain"] == [None, pytest.approx(-2.2)]
    assert table["task of the smallest gain"] == [None, "SST-2"]


def test_verdict_names_the_best_in_the_worst_case_and_its_cost(glue: list[Source]) -> None:
    compared = scores_of(glue)
    assert headline(compared) == (
        "Best in the worst case: minimax (lowest score 61.4, CoLA), 9.2 better than bert; gains 1.7 in the mean."
    )
    assert details(compared) == [
        "One run per label: the spread is unknown.",
        "Smallest gain of a task over bert: minimax -2.2 (SST-2).",
        "Best in the mean: minimax (80.9).",
    ]


def test_equal_scores_have_no_winner(write_scores: Write, tmp_path: Path) -> None:
    write_scores("a", {"cola": 0.0, "rte": 0.5})
    write_scores("b", {"cola": 0.5, "rte": 0.0})
    compared = scores_of([find_source(label, [tmp_path / label]) for label in "ab"])
    assert headline(compared) == "Tied in the worst case: a, b (lowest score 0.0)."
    assert "Best in the mean: a, b (25.0)." in details(compared)


def test_differences_within_the_spread_are_marked(write_scores: Write, tmp_path: Path) -> None:
    for seed, noise in enumerate((-0.02, 0.0, 0.02)):
        write_scores(f"a/{seed}", {"semseg": 0.50 + noise, "depth": 0.7}, seed)
        write_scores(f"b/{seed}", {"semseg": 0.51 + noise, "depth": 0.6}, seed)
    compared = scores_of([find_source(label, [tmp_path / label]) for label in "ab"])
    assert headline(compared) == (
        "Best in the worst case: b (lowest score 51.0 ± 2.0, Semseg), 1.0 better than a (within the spread); costs "
        "4.5 in the mean."
    )
    assert details(compared)[0] == "Within the spread of the best worst case: a."
    gain = comparison_table(compared, "x", "X").rows[-4]
    assert (gain.name, [cell.close for cell in gain.cells]) == ("gain in the lowest score", [False, True])


def test_missing_tasks_are_excluded_for_all_labels_with_a_warning(write_scores: Write, tmp_path: Path) -> None:
    write_scores("a", {"semseg": 0.5, "depth": 0.7, "classification": 0.1})
    write_scores("b", {"semseg": 0.4, "depth": 0.8})
    compared = scores_of([find_source(label, [tmp_path / label]) for label in "ab"])
    table = rows(compared)
    assert table["Cls"] == [pytest.approx(10.0), None]
    assert table["mean of 2"] == [pytest.approx(60.0), pytest.approx(60.0)]
    assert table["lowest score"] == [pytest.approx(50.0), pytest.approx(40.0)]
    assert compared.warnings == [
        "b lacks Cls.",
        "Mean, worst case and gains are over the tasks that all labels have: Semseg, Depth.",
    ]


def test_scores_of_another_split_are_not_compared(write_scores: Write, tmp_path: Path) -> None:
    write_scores("a/dev", {"rte": 0.5}, split="dev")
    write_scores("a/test", {"rte": 0.6}, split="test")
    write_scores("b", {"rte": 0.7}, split="dev")
    write_scores("c", {"rte": 0.8}, split="test")
    write_scores("d", {"rte": 0.9}, split="dev")
    compared = scores_of([find_source(label, [tmp_path / label]) for label in "abcd"])
    assert rows(compared)["RTE"] == [50.0, 70.0, 90.0]
    assert compared.notes == ["RTE: accuracy on dev, best model, GLUE."]
    assert compared.warnings == [
        "c has rte as accuracy on test, best model, but accuracy on dev, best model is compared."
    ]


def test_a_task_on_several_data_sets_has_a_row_for_each(write_scores: Write, tmp_path: Path) -> None:
    for label, score in (("a", 0.5), ("b", 0.6)):
        write_scores(f"{label}/small", {"semseg": score, "depth": 0.9}, data="nyuv2 at 224 px")
        write_scores(f"{label}/large", {"semseg": score + 0.1}, data="nyuv2 at 640 px")
    table = rows(scores_of([find_source(label, [tmp_path / label]) for label in "ab"]))
    assert table["Semseg, nyuv2 at 224 px"] == [50.0, 60.0]
    assert table["Semseg, nyuv2 at 640 px"] == [60.0, 70.0]
    assert table["Depth"] == [90.0, 90.0]
    assert "mean of 3" in table


def test_scores_on_different_data_are_not_compared(write_scores: Write, tmp_path: Path) -> None:
    write_scores("a", {"mrpc": 0.5}, data="GLUE")
    write_scores("b", {"mrpc": 0.9}, data="miniature GLUE")
    compared = scores_of([find_source(label, [tmp_path / label]) for label in "ab"])
    assert not compared.standings
    assert compared.warnings == [
        "a lacks MRPC, miniature GLUE.",
        "b lacks MRPC, GLUE.",
        "No task is common to all labels: there is no mean and no worst case to compare.",
    ]


def test_fine_tunings_with_other_settings_are_a_warning(write_scores: Write, tmp_path: Path) -> None:
    for label, seed, lr, epochs in (("a", 0, 0.1, 3), ("a", 1, 0.1, 3), ("b", 0, 0.2, 3), ("b", 1, 0.1, 9)):
        settings = {
            "model": f"runs/{label}",
            "output": f"runs/{label}/{seed}",
            "encoder": {"width": seed},
            "loop": {"seed": seed, "epochs": epochs},
            "optim": {"lr": lr},
        }
        write_scores(f"{label}/{seed}", {"semseg": 0.5}, seed, settings)
    compared = scores_of([find_source(label, [tmp_path / label]) for label in "ab"])
    first = tmp_path / "a/0"
    assert compared.warnings == [
        f"Semseg was fine-tuned differently: optim.lr is 0.1 there and 0.2 here ({first} and {tmp_path / 'b/0'}).",
        f"Semseg was fine-tuned differently: loop.epochs is 3 there and 9 here ({first} and {tmp_path / 'b/1'}).",
    ]


def test_two_scores_of_one_run_are_an_error_and_a_copy_counts_once(write_scores: Write, tmp_path: Path) -> None:
    write_scores("a/one", {"rte": 0.5})
    write_scores("a/copy", {"rte": 0.5})
    assert scores_of([find_source("a", [tmp_path / "a"])]).estimates["a"]["rte"].runs == 1
    write_scores("a/other", {"rte": 0.6})
    with pytest.raises(ValueError, match=r"Expected one result of rte with seed 0 from runs/a under 'a', got 0\.5 in"):
        scores_of([find_source("a", [tmp_path / "a"])])


def test_a_score_that_is_not_a_number_names_file_and_field(write_scores: Write) -> None:
    folder = write_scores("a", {"rte": float("nan")})
    with pytest.raises(ValueError, match=r"Expected a number as value of rte in .*results\.json, got nan"):
        scores_of([find_source("a", [folder])])


def test_mean_and_worst_risk_exclude_tasks_of_fixed_weight(write_pretraining: Write) -> None:
    folder = write_pretraining("a", {"noun": 2.0, "verb": 1.0, "nsp": 9.0})
    table = rows(risks_of([find_source("a", [folder])]))
    assert table["nsp"] == [9.0]
    assert (table["mean of 2"], table["largest risk"], table["task of the largest risk"]) == ([1.5], [2.0], ["noun"])


def test_a_risk_that_is_not_finite_is_the_worst(write_pretraining: Write) -> None:
    sources = [
        find_source("a", [write_pretraining("a", {"noun": 2.0, "verb": 1.0})]),
        find_source("b", [write_pretraining("b", {"noun": 1.0, "verb": None})]),
    ]
    compared = risks_of(sources)
    assert compared.standings["b"].worst_task == "verb"
    assert headline(compared).startswith("Best in the worst case: a (largest risk 2.000, noun), the baseline.")


def test_evaluations_at_different_steps_are_a_warning(write_pretraining: Write) -> None:
    sources = [
        find_source("a", [write_pretraining("a", {"noun": 2.0, "verb": 1.0})]),
        find_source("b", [write_pretraining("b", {"noun": 1.0, "verb": 3.0}, step=20)]),
    ]
    assert risks_of(sources).warnings == ["The last evaluations are at different steps, from 20 to 30."]


def test_cost_is_the_median_of_the_lines_and_the_measured_step(write_pretraining: Write, tmp_path: Path) -> None:
    sources = []
    for label, flops in (("a", 2e9), ("b", 3e9)):
        folder = write_pretraining(label, {"noun": 2.0, "verb": 1.0})
        (folder / "cost.json").write_text(
            f'{{"flops_per_step": {flops}, "seconds_per_step": 0.5, "batch_size": 8, "device": "CPU"}}'
        )
        sources.append(find_source(label, [folder]))
    table = cost_table(sources, "a")
    assert table is not None
    values = {row.name: [cell.value for cell in row.cells] for row in table.rows}
    assert values["samples per second"] == [2000.0, 2000.0]
    assert values["ms per step"] == [4.0, 4.0]
    assert values["FLOPs over baseline"] == [1.0, 1.5]
    assert values["device"] == ["CPU", "CPU"]
