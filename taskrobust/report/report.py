"""The content of a comparison, section by section, independent of how it is rendered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from taskrobust.report.comparison import Comparison, Statistic, compare_risks, compare_scores, compare_within_class
from taskrobust.report.plots import (
    Style,
    draw_effective_tasks,
    draw_gain_and_cost,
    draw_gains,
    draw_risks_and_weights,
    styles,
)
from taskrobust.report.runs import Source, mean_run
from taskrobust.report.tables import Table, comparison_table, cost_table
from taskrobust.report.verdict import details, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A plot.

    Args:
        name: Name of its file.
        caption: Its caption.
        draw: Draws the figure.
    """

    name: str
    caption: str
    draw: "Callable[[], Figure]"


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Args:
        title: Its title.
        table: Its table.
        headline: The main finding; empty if there is none.
        details: Further findings.
        plots: Its plots.
    """

    title: str
    table: Table
    headline: str = ""
    details: Sequence[str] = ()
    plots: Sequence[Plot] = ()


@dataclass(frozen=True)
class Report:
    """A comparison of labels.

    Args:
        labels: The labels.
        baseline: The label that gains are over.
        sections: Its sections.
        warnings: Sentences on runs that were not found or were left out.
    """

    labels: Sequence[str]
    baseline: str
    sections: Sequence[Section]
    warnings: Sequence[str]


def make_report(sources: Sequence[Source], baseline: str, statistic: Statistic, warnings: Sequence[str] = ()) -> Report:
    """Compare the scores, risks and costs of all labels.

    Args:
        sources: All labels.
        baseline: The label that gains are over.
        statistic: Center of the runs of a task.
        warnings: Sentences on runs that were not found.
    """
    labels = [source.label for source in sources]
    look = styles(labels)
    sections = []
    scores = compare_scores(sources, baseline, statistic)
    if scores:
        table = comparison_table(scores, "scores", "Downstream scores in percent, higher is better")
        plots = _comparison_plots(scores, "scores", look)
        sections.append(Section("Downstream tasks", table, headline(scores), details(scores), plots))
    risks = compare_risks(sources, baseline, statistic)
    if risks:
        table = comparison_table(risks, "held_out", "Held-out risk of pre-training, lower is better")
        plots = [*_comparison_plots(risks, "held_out", look), *_training_plots(sources, look)]
        sections.append(Section("Pre-training", table, headline(risks), details(risks), plots))
    within = compare_within_class(sources, baseline, statistic)
    if within:
        table = comparison_table(within, "within_class", "Held-out risk of words given their class, lower is better")
        plots = _comparison_plots(within, "within_class", look)
        sections.append(Section("Within classes", table, headline(within), details(within), plots))
    cost = cost_table(sources, baseline)
    if cost:
        sections.append(Section("Cost", cost))
    left_out = [sentence for source in sources for sentence in source.left_out]
    return Report(labels, baseline, sections, [*warnings, *left_out])


def _comparison_plots(comparison: Comparison, name: str, look: Mapping[str, Style]) -> list[Plot]:
    if len(comparison.labels) < 2:
        return []
    plots = [
        Plot(
            f"{name}_gains",
            f"Gain of each task over {comparison.baseline}. Bars: standard deviation over runs. Band: that of "
            f"{comparison.baseline}.",
            partial(draw_gains, comparison, look),
        )
    ]
    if comparison.standings:
        caption = (
            f"Gain in the worst case against gain in the mean, {comparison.baseline} at the origin. "
            "Bars: standard deviation over runs."
        )
        plots.insert(0, Plot(f"{name}_gain_and_cost", caption, partial(draw_gain_and_cost, comparison, look)))
    return plots


def _training_plots(sources: Sequence[Source], look: Mapping[str, Style]) -> list[Plot]:
    runs = {
        source.label: logged
        for source in sources
        if (logged := [run for run in source.pretraining.values() if run.training])
    }
    if not runs:
        return []
    means = [mean_run(of_label) for of_label in runs.values()]
    return [
        Plot(
            "risks_and_weights",
            "Risk and weight of each task over pre-training steps, mean over runs. Thick line: the worst task at the "
            "end.",
            partial(draw_risks_and_weights, means),
        ),
        Plot(
            "effective_tasks",
            "Effective number of tasks: the exponential of the entropy of the weights. It is the number of tasks for "
            "equal weights, and 1 if one task has all the weight.",
            partial(draw_effective_tasks, runs, look),
        ),
    ]
