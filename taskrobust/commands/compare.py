import json
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from taskrobust.report import render
from taskrobust.report.comparison import Statistic
from taskrobust.report.page import Picture, html_page, markdown_page
from taskrobust.report.plots import png
from taskrobust.report.report import Report, make_report
from taskrobust.report.runs import find_sources, labeled_folders


def compare(
    runs: list[str],
    output: Path = Path("runs/comparison"),
    baseline: str | None = None,
    statistic: Statistic = "mean",
    missing: Literal["error", "warn"] = "error",
) -> None:
    """Compare runs, such as of several weightings: which is best in the worst case, and its cost in the mean.

    Writes a page with all results (index.html), the tables (tables.md, tables.tex, tables.json and a CSV file for each
    table), and the plots as PNG files.

    Args:
        runs: LABEL=FOLDER for each run. A folder is a pre-training run or a fine-tuning run, or contains any number of
            both. The runs of a label are its seeds: repeat the label, or name a folder that contains several runs.
            FOLDER alone is labeled by its name, without -seed and a number at the end.
        output: Folder of the results.
        baseline: Label that gains are over. Defaults to the first.
        statistic: Center of several seeds: their mean or their median.
        missing: How to treat a label without a run: as an ``error``, or with a warning in the report.

    Raises:
        ValueError: If a label (with missing='warn', every label) has no run, or the baseline is not a label.
    """
    labels = list(labeled_folders(runs))
    baseline = labels[0] if baseline is None else baseline
    if baseline not in labels:
        raise ValueError(f"Expected a baseline among the labels {labels}, got {baseline!r}.")
    sources, warnings = find_sources(runs, missing == "warn")
    if baseline not in [source.label for source in sources]:
        warnings.append(f"The baseline {baseline} has no run: gains are over {sources[0].label}.")
        baseline = sources[0].label
    report = make_report(sources, baseline, statistic, warnings)
    output.mkdir(parents=True, exist_ok=True)
    _write(report, output)
    console = Console()
    _print(report, console)
    console.print(f"Page: {output / 'index.html'}", soft_wrap=True, markup=False, highlight=False)


def _write(report: Report, output: Path) -> None:
    tables = [section.table for section in report.sections]
    plots = [plot for section in report.sections for plot in section.plots]
    pictures = {plot.name: Picture(png(plot.draw), png(plot.draw, dark=True)) for plot in plots}
    (output / "index.html").write_text(html_page(report, pictures))
    (output / "tables.md").write_text(markdown_page(report))
    (output / "tables.tex").write_text("\n".join(map(render.latex, tables)))
    (output / "tables.json").write_text(
        json.dumps({table.name: render.json_value(table) for table in tables}, indent=2) + "\n"
    )
    for table in tables:
        (output / f"{table.name}.csv").write_text(render.csv_text(table))
    for name, picture in pictures.items():
        (output / f"{name}.png").write_bytes(picture.light)


def _print(report: Report, console: Console) -> None:
    for section in report.sections:
        table = section.table
        console.print(render.rich_table(table))
        warnings = [f"Warning: {text}" for text in table.warnings]
        for text in (section.headline, *section.details, *warnings, *table.notes):
            style = "bold" if text == section.headline else "dim" if text in table.notes else ""
            console.print(Text(text, style=style))
        console.print()
    for text in report.warnings:
        console.print(Text(f"Warning: {text}"))
