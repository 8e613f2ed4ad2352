import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import image

from taskrobust.commands.compare import compare
from taskrobust.report.render import json_value
from taskrobust.report.report import make_report
from taskrobust.report.runs import find_source, labeled_folders

Write = Callable[..., Path]

TABLES = ("scores", "held_out", "cost")
PLOTS = (
    "scores_gain_and_cost",
    "scores_gains",
    "held_out_gain_and_cost",
    "held_out_gains",
    "risks_and_weights",
    "effective_tasks",
)


@pytest.fixture
def runs(write_pretraining: Write, write_scores: Write, tmp_path: Path) -> list[str]:
    """Two labels, each with pre-training and fine-tuning of two seeds."""
    for label, semseg, strategy in (("average", 2.0, "Uniform"), ("mini<max>", 1.5, "SoftmaxMinimax")):
        for seed in (0, 1):
            risks = {"rgb": 0.5 + 0.01 * seed, "semseg": semseg + 0.02 * seed}
            write_pretraining(f"{label}/pre/{seed}", risks, seed, strategy)
            scores = {"semseg": 1 / (semseg + 0.1 * seed), "depth": 0.6 + 0.01 * seed}
            write_scores(f"{label}/fine/{seed}", scores, seed)
    return [str(tmp_path / "average"), f"mini<max>={tmp_path / 'mini<max>'}"]


class Links(HTMLParser):
    """Every address that a page would load, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_compare_writes_tables_plots_and_a_page(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    compare(runs, output)

    assert {file.name for file in output.iterdir()} == {
        "index.html",
        "tables.md",
        "tables.tex",
        "tables.json",
        *(f"{name}.csv" for name in TABLES),
        *(f"{name}.png" for name in PLOTS),
    }
    tables = json.loads((output / "tables.json").read_text())
    assert list(tables) == list(TABLES)
    assert tables["scores"]["rows"]["Semseg"]["average"]["value"] == pytest.approx(100 * (1 / 2.0 + 1 / 2.1) / 2)
    for name in TABLES:
        with (output / f"{name}.csv").open() as file:
            assert {row["row"] for row in csv.DictReader(file)} == set(tables[name]["rows"])
    for name in PLOTS:
        pixels = image.imread(output / f"{name}.png")
        assert min(pixels.shape[:2]) > 250
        assert pixels[..., :3].std() > 0.02
    verdict = "Best in the worst case: mini<max>"
    assert verdict in capsys.readouterr().out
    assert verdict in (output / "tables.md").read_text()
    for address in re.findall(r"!\[.*?\]\((.*?)\)", (output / "tables.md").read_text()):
        assert (output / address).exists()

    page = Links()
    page.feed((output / "index.html").read_text())
    assert not page.open
    assert len(page.addresses) == 2 * len(PLOTS)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe"} & page.tags
    assert "mini&lt;max&gt;" in (output / "index.html").read_text()
    assert not re.search(r"https?://|@import|url\(", (output / "index.html").read_text())


def test_a_single_run_has_tables_and_no_gains(write_pretraining: Write, tmp_path: Path) -> None:
    folder = write_pretraining("a", {"rgb": 1.0, "depth": 2.0})
    compare([str(folder)], tmp_path / "out")
    rows = json.loads((tmp_path / "out/tables.json").read_text())["held_out"]["rows"]
    assert list(rows) == ["rgb", "depth", "mean of 2", "largest risk", "task of the largest risk", "runs"]


def test_labels_without_a_common_task_are_shown_but_not_ranked(
    write_scores: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scores("a", {"rte": 0.5})
    write_scores("b", {"cola": 0.5})
    compare([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out")
    printed = capsys.readouterr().out
    assert "No task is common to all labels" in printed
    assert "Best" not in printed


def test_a_baseline_that_is_not_a_label_is_an_error(runs: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a baseline among the labels \['average', .*\], got 'none'"):
        compare(runs, tmp_path / "out", baseline="none")


def test_a_weighting_that_failed_early_is_missing_with_a_warning(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"failed={tmp_path / 'failed'}", *runs]
    with pytest.raises(ValueError, match=r"there is no folder .*failed for 'failed'"):
        compare(given, tmp_path / "out")
    compare(given, tmp_path / "out", missing="warn")
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "Warning: failed is left out. Expected a run in" in printed
    assert "The baseline failed has no run: gains are over average." in printed
    assert "Best in the worst case: mini<max>" in printed
    assert "failed is left out" in (tmp_path / "out/index.html").read_text()
    compare(given, tmp_path / "out", baseline="failed", missing="warn")
    assert "gains are over average" in capsys.readouterr().out


def test_another_baseline_reverses_the_gains(runs: list[str]) -> None:
    sources = [find_source(label, folders) for label, folders in labeled_folders(runs).items()]
    for baseline, other, gain in (("average", "mini<max>", 0.5), ("mini<max>", "average", -0.5)):
        table = json_value(make_report(sources, baseline, "mean").sections[1].table)
        assert table["rows"]["gain in the largest risk"][other]["value"] == pytest.approx(gain)


def test_a_diverged_run_does_not_prevent_a_comparison(
    write_pretraining: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        write_pretraining(f"good/{seed}", {"rgb": 1.0 + 0.1 * seed, "depth": 2.0}, seed)
        write_pretraining(f"bad/{seed}", {"rgb": 1.0, "depth": None if seed else 1.0}, seed)
    compare([str(tmp_path / "good"), str(tmp_path / "bad")], tmp_path / "out")
    assert "Best in the worst case: good" in capsys.readouterr().out
