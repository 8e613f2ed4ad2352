"""Render a report as one page: a self-contained HTML file, or Markdown."""

import base64
from collections.abc import Mapping
from html import escape
from typing import Final, NamedTuple

from taskrobust.report.render import cell_text, markdown
from taskrobust.report.report import Plot, Report, Section
from taskrobust.report.tables import Row, Table


class Picture(NamedTuple):
    """A plot as PNG files, for a light and for a dark page."""

    light: bytes
    dark: bytes


_STYLE: Final = """
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --text: #1c1f24; --faint: #626a75; --line: #dfe2e7;
  --best: #0b6b4f; --tint: #e3f4ed; --warn: #7a4b00; --warn-tint: #fdf1d8; }
@media (prefers-color-scheme: dark) { :root { --page: #12141a; --card: #1b1e24; --text: #e3e5e9; --faint: #9aa2ad;
  --line: #333842; --best: #6fd9b0; --tint: #173a2f; --warn: #f0c674; --warn-tint: #3a2f17; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
.faint, figcaption, .notes { color: var(--faint); font-size: .88rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.25rem;
  margin: 1rem 0; }
.verdict { border-left: 5px solid var(--best); }
.verdict strong { display: block; font-size: 1.12rem; }
.verdict p { margin: .4rem 0 0; }
.warning { background: var(--warn-tint); color: var(--warn); border-radius: 8px; padding: .5rem .9rem;
  margin: .6rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; }
thead th { border-bottom: 2px solid var(--line); font-weight: 600; }
tr.section > * { border-top: 1px solid var(--line); }
td.best { color: var(--best); background: var(--tint); font-weight: 650; }
figure { margin: 0; } figure img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
figcaption { margin-top: .6rem; }
.notes { padding-left: 1.1rem; margin: .8rem 0 0; }
"""


def html_page(report: Report, pictures: Mapping[str, Picture]) -> str:
    """The report as one HTML page, with a light and a dark color scheme.

    Args:
        report: The report.
        pictures: The plots as PNG files, by name.
    """
    is_comparison = len(report.labels) > 1
    body = [
        f"<h1>{escape(_title(report))}</h1>",
        *([f'<p class="faint">Gains are over the baseline {escape(report.baseline)}.</p>'] if is_comparison else []),
        *(_verdict(section) for section in report.sections if section.headline),
        *(_warning(text) for text in report.warnings),
        *(_section(section, pictures) for section in report.sections),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(_title(report))}</title>",
            f"<style>{_STYLE}</style></head>",
            "<body><main>",
            *body,
            "</main></body></html>\n",
        ]
    )


def markdown_page(report: Report) -> str:
    """The report in Markdown, with links to the plots in the same folder."""
    parts = [f"# {_title(report)}", *(f"**Warning:** {text}" for text in report.warnings)]
    for section in report.sections:
        table = section.table
        parts += [
            f"## {section.title}",
            *([f"**{section.headline}**"] if section.headline else []),
            *([" ".join(section.details)] if section.details else []),
            f"{table.title}:",
            markdown(table).rstrip("\n"),
            *(f"**Warning:** {text}" for text in table.warnings),
            "\n".join(f"- {note}" for note in table.notes),
            *(f"![{plot.caption}]({plot.name}.png)" for plot in section.plots),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(report: Report) -> str:
    return f"Comparison of {', '.join(report.labels)}"


def _verdict(section: Section) -> str:
    details = f"<p>{escape(' '.join(section.details))}</p>" if section.details else ""
    return (
        f'<div class="card verdict"><span class="faint">{escape(section.title)}</span>'
        f"<strong>{escape(section.headline)}</strong>{details}</div>"
    )


def _section(section: Section, pictures: Mapping[str, Picture]) -> str:
    table = section.table
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return "\n".join(
        [
            f"<h2>{escape(section.title)}</h2>",
            *(_warning(text) for text in table.warnings),
            f'<div class="card"><div class="wide">{_table(table)}</div><ul class="notes">{notes}</ul></div>',
            *(_figure(plot, pictures[plot.name]) for plot in section.plots),
        ]
    )


def _warning(text: str) -> str:
    return f'<p class="warning">{escape(text)}</p>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in table.columns)
    rows = "\n".join(_row(row) for row in table.rows)
    return (
        f"<table><caption>{escape(table.title)}</caption>\n"
        f"<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    )


def _row(row: Row) -> str:
    best = ' class="best"'
    cells = "".join(f"<td{best if cell.best else ''}>{escape(cell_text(cell, row))}</td>" for cell in row.cells)
    section = ' class="section"' if row.starts_section else ""
    return f'<tr{section}><th scope="row">{escape(row.name)}</th>{cells}</tr>'


def _figure(plot: Plot, picture: Picture) -> str:
    light, dark = (f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in picture)
    return (
        '<figure class="card"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(plot.caption)}"></picture>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )
