"""The plots of a comparison. A label looks the same in all of them."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from taskrobust.report.comparison import Comparison
from taskrobust.report.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = Mapping[str, Any]
"""Color and marker of a label."""

_DPI: Final = 130
_COLORS: Final = ("#7f7f7f", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#9a6324", "#d55e00")
"""Those of Okabe and Ito, which color-blind readers can tell apart."""
_MARKERS: Final = "osD^vP*X"
_DARK: Final = {
    "figure.facecolor": "#1b1e24",
    "axes.facecolor": "#1b1e24",
    "savefig.facecolor": "#1b1e24",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), "#d5d8de"),
}


def png(draw: "Callable[[], Figure]", dark: bool = False) -> bytes:
    """Render a figure as a PNG file.

    Args:
        draw: Draws the figure.
        dark: Whether to use light colors on a dark background.
    """
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context(_DARK if dark else {}):
        draw().savefig(file)
    return file.getvalue()


def plot_risks_and_weights(runs: Sequence[RunRecord], path: Path) -> None:
    """Draw the training risk and weight of each task over steps, with one column per run.

    Args:
        runs: The runs, of the same tasks.
        path: The PNG file.
    """
    path.write_bytes(png(lambda: draw_risks_and_weights(runs)))


def draw_risks_and_weights(runs: Sequence[RunRecord]) -> "Figure":
    """Training risk and weight of each task over steps, with one column per run; the worst task has the thick line.

    Args:
        runs: The runs, of the same tasks.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    width = min(5.5 * len(runs), max(11, 3.1 * len(runs)))
    figure = Figure((width, 6.5), dpi=_DPI, layout="constrained")
    axes = figure.subplots(2, len(runs), sharex=True, sharey="row", squeeze=False)
    tasks = list(dict.fromkeys(task for run in runs for task in run.training[0]["risks"]))
    colors = {task: colormaps["tab10"](number % 10) for number, task in enumerate(tasks)}
    for column, run in enumerate(runs):
        steps = [line["step"] for line in run.training]
        risk_axis, weight_axis = axes[:, column]
        last = run.held_out[-1]
        for task in run.training[0]["risks"]:
            width = 2.4 if task == last["worst_task"] else 1.2
            risks = [_number(line["risks"][task]) for line in run.training]
            risk_axis.plot(steps, _smooth(risks), color=colors[task], linewidth=width, label=task)
            if last["risks"].get(task) is not None:
                risk_axis.plot(last["step"], last["risks"][task], "o", markersize=5, color=colors[task])
            if task in run.training[0]["weights"]:  # its weight is not fixed
                weights = [_number(line["weights"][task]) for line in run.training]
                weight_axis.plot(steps, _smooth(weights), color=colors[task], linewidth=width)
        risk_axis.set_title(run.label)
        weight_axis.set_xlabel("step")
    axes[0, 0].set_ylabel("risk (dots: held-out)")
    axes[1, 0].set_ylabel("weight")
    for axis in axes.flat:
        axis.grid(alpha=0.25)
    handles = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _smooth(values: list[float], decay: float = 0.8) -> list[float]:
    """Bias-corrected exponential moving average, in which gaps stay gaps."""
    smoothed, mean, weight = [], 0.0, 0.0
    for value in values:
        if value == value:
            mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        smoothed.append(mean / weight if value == value else value)
    return smoothed


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """Assign each label a style. With more than eight labels, several share a color."""
    return {
        label: {"color": _COLORS[i % len(_COLORS)], "marker": _MARKERS[(i + i // 8) % len(_MARKERS)]}
        for i, label in enumerate(labels)
    }


def draw_gain_and_cost(comparison: Comparison, look: Mapping[str, Style]) -> "Figure":
    """Gain in the worst case against gain in the mean, one point per label, with the spread over runs as bars.

    Args:
        comparison: The comparison, of at least two labels.
        look: Styles of the labels.
    """
    from matplotlib.figure import Figure

    quantity = comparison.quantity
    figure = Figure((8, 4.8), dpi=_DPI, layout="constrained")
    axis = figure.subplots()
    axis.axhline(0, color="gray", linewidth=0.8)
    axis.axvline(0, color="gray", linewidth=0.8)
    for label, standing in comparison.standings.items():
        axis.errorbar(
            standing.mean_gain,
            standing.worst_gain,
            xerr=_bar(standing.mean.spread),
            yerr=_bar(standing.worst.spread),
            linestyle="none",
            markersize=9,
            capsize=3,
            elinewidth=1,
            label=f"{label} (baseline)" if label == comparison.baseline else label,
            **look[label],
        )
    axis.margins(0.15)
    axis.set_xlim(_with_both_signs(*axis.get_xlim()))
    axis.set_ylim(_with_both_signs(*axis.get_ylim()))
    axis.set_xlabel(f"gain in the mean over {comparison.baseline} (left of 0: the cost)")
    axis.set_ylabel(f"gain in the {quantity.extreme} {quantity.noun}")
    _name_corners(axis)
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_gains(comparison: Comparison, look: Mapping[str, Style]) -> "Figure":
    """Gain of each task over the baseline, with the spread over runs as bars, and that of the baseline as a band.

    Args:
        comparison: The comparison, of at least two labels.
        look: Styles of the labels.
    """
    from matplotlib.figure import Figure

    at_baseline = comparison.estimates[comparison.baseline]
    tasks = [task for task in comparison.titles if task in at_baseline]
    others = [label for label in comparison.labels if label != comparison.baseline]
    height = 1.4 + len(tasks) * max(0.4, 0.16 * len(others))
    figure = Figure((8, height), dpi=_DPI, layout="constrained")
    axis = figure.subplots()
    for place, task in enumerate(tasks):
        band = _bar(at_baseline[task].spread)
        axis.fill_betweenx([place - 0.42, place + 0.42], -band, band, color="gray", alpha=0.25, linewidth=0)
    for rank, label in enumerate(others):
        estimates = comparison.estimates[label]
        offset = 0.7 * ((rank + 0.5) / len(others) - 0.5)
        places = [place for place, task in enumerate(tasks) if task in estimates]
        axis.errorbar(
            [comparison.gain(label, tasks[place]) for place in places],
            [place + offset for place in places],
            xerr=[_bar(estimates[tasks[place]].spread) for place in places],
            linestyle="none",
            capsize=2,
            elinewidth=1,
            label=label,
            **look[label],
        )
    axis.axvline(0, color="gray", linewidth=0.8)
    axis.set_yticks(range(len(tasks)), [comparison.titles[task] for task in tasks])
    axis.invert_yaxis()
    axis.set_xlabel(f"gain over {comparison.baseline}, right is better (band: spread of {comparison.baseline})")
    axis.grid(axis="x", alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_effective_tasks(runs: Mapping[str, Sequence[RunRecord]], look: Mapping[str, Style]) -> "Figure":
    """Effective number of tasks over steps: mean of a label's runs, in a band from minimum to maximum.

    Args:
        runs: The runs of each label.
        look: Styles of the labels.
    """
    from matplotlib.figure import Figure

    figure = Figure((8, 3.6), dpi=_DPI, layout="constrained")
    axis = figure.subplots()
    for label, records in runs.items():
        by_step = [{line["step"]: line["effective_tasks"] for line in record.training} for record in records]
        steps = [step for step in by_step[0] if all(of_run.get(step) is not None for of_run in by_step)]
        values = [[of_run[step] for of_run in by_step] for step in steps]
        color = look[label]["color"]
        axis.plot(steps, [fmean(of_step) for of_step in values], color=color, label=label)
        lowest, highest = [min(of_step) for of_step in values], [max(of_step) for of_step in values]
        axis.fill_between(steps, lowest, highest, color=color, alpha=0.2, linewidth=0)
    axis.set_xlabel("step")
    axis.set_ylabel("effective number of tasks")
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _bar(spread: float) -> float:
    return 0.0 if math.isnan(spread) else spread


def _with_both_signs(low: float, high: float) -> tuple[float, float]:
    """Limits that leave room for the names of the corners on both sides of 0."""
    return min(low, -0.4 * high), max(high, -0.4 * low)


def _name_corners(axis: "Axes") -> None:
    corners: dict[tuple[float, float], str] = {
        (0.015, 0.98): "better in the worst case,\nworse in the mean",
        (0.985, 0.98): "better in both",
        (0.015, 0.02): "worse in both",
        (0.985, 0.02): "worse in the worst case,\nbetter in the mean",
    }
    for (x, y), text in corners.items():
        place: dict[str, Any] = {"ha": "left" if x < 0.5 else "right", "va": "bottom" if y < 0.5 else "top"}
        axis.text(x, y, text, transform=axis.transAxes, fontsize=8, color="gray", **place)
