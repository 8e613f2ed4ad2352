import csv
import io
import json
import math
import re

from rich.console import Console

from taskrobust.report.render import cell_text, csv_text, json_value, latex, markdown, rich_table
from taskrobust.report.tables import Cell, Row, Table

TABLE = Table(
    name="held_out",
    title="Risk & cost",
    columns=("average_of 9", "mini|max"),
    rows=(
        Row("noun", (Cell(1.23456, 0.0156), Cell(1.5, best=True)), ".2f"),
        Row("gain", (Cell(None), Cell(-0.25, close=True)), "+z.1f", starts_section=True),
        Row("task", (Cell("<b>_x"), Cell("nsp"))),
    ),
    notes=("50 % of A ± B.",),
    warnings=("b lacks Cls.",),
)


def test_a_cell_shows_spread_and_closeness() -> None:
    assert cell_text(Cell(53.24, 1.06), Row("", ())) == "53.2 ± 1.1"
    assert cell_text(Cell(-0.001, close=True), Row("", (), "+z.1f")) == "≈ +0.0"
    assert cell_text(Cell(None), Row("", ())) == "–"  # noqa: RUF001


def test_markdown_has_the_same_number_of_cells_in_each_line() -> None:
    lines = markdown(TABLE).splitlines()
    assert lines[2] == "| noun | 1.23 ± 0.02 | **1.50** |"
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {5}


def test_csv_reads_back_unrounded() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(TABLE))))
    assert rows[0] == {"row": "noun", "label": "average_of 9", "value": "1.23456", "spread": "0.0156"}
    assert [row["value"] for row in rows] == ["1.23456", "1.5", "", "-0.25", "<b>_x", "nsp"]
    assert rows[1]["label"] == "mini|max"


def test_csv_computes_nothing_in_a_spreadsheet() -> None:
    formula = Table("x", "X", ("=HYPERLINK(1)", "a"), (Row("@SUM(1)", (Cell("-1+1"), Cell(-0.25))),))
    first, second = csv.DictReader(io.StringIO(csv_text(formula)))
    assert (first["row"], first["label"], first["value"]) == ("'@SUM(1)", "'=HYPERLINK(1)", "'-1+1")
    assert second["value"] == "-0.25"


def test_json_reads_back_without_nan() -> None:
    value = json.loads(json.dumps(json_value(TABLE), allow_nan=False))
    assert value["rows"]["noun"]["mini|max"] == {"value": 1.5, "spread": None, "best": True, "within_spread": False}
    assert value["rows"]["gain"]["mini|max"]["within_spread"]
    assert value["warnings"] == ["b lacks Cls."]
    assert json_value(Table("x", "X", ("a",), (Row("r", (Cell(math.inf),)),)))["rows"]["r"]["a"]["value"] is None


def test_latex_is_a_booktabs_table_with_one_line_per_label() -> None:
    text = latex(TABLE)
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert body == [
        r"average\_of 9 & 1.23 $\pm$ 0.02 & -- & <b>\_x \\",
        r"mini|max & \textbf{1.50} & $\approx$ $-$0.2 & nsp \\",
    ]
    assert r"\caption{Risk \& cost. 50 \% of A $\pm$ B. b lacks Cls.}" in text
    assert r"\begin{tabular}{lrrr}" in text
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    assert not re.search(r"(?<!\\)[_%#]", text)


def test_terminal_shows_names_verbatim() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(rich_table(TABLE))
    assert "<b>_x" in (text := console.export_text())
    assert "1.23 ± 0.02" in text
