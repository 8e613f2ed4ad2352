import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskrobust.report.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI: Final = 130

_DARK: Final = {
    "figure.facecolor": "#1b1e24",
    "axes.facecolor": "#1b1e24",
    "savefig.facecolor": "#1b1e24",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), "#d5d8de"),
}


def png(draw: "Callable[[], Figure]", dark: bool = False) -> bytes:
    """A figure as a PNG file.

    Args:
        draw: Draws the figure.
        dark: Whether it is bright on dark.
    """
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context(_DARK if dark else {}):
        draw().savefig(file)
    return file.getvalue()


def plot_risks_and_weights(runs: Sequence[RunRecord], path: Path) -> None:
    """Draw every task's training risk and weight over steps, one column a run.

    Args:
        runs: The runs, of the same tasks.
        path: The PNG file.
    """
    path.write_bytes(png(lambda: draw_risks_and_weights(runs)))


def draw_risks_and_weights(runs: Sequence[RunRecord]) -> "Figure":
    """Every task's training risk and weight over steps, one column a run; the worst task is the thick line.

    Args:
        runs: The runs, of the same tasks.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    width = min(5.5 * len(runs), max(11, 3.1 * len(runs)))
    figure = Figure((width, 6.5), dpi=DPI, layout="constrained")
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
            if task in run.training[0]["weights"]:  # not one of a fixed weight
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
    """Exponential mean, so that curves of noisy tasks can be told apart; gaps stay gaps."""
    smoothed, mean, weight = [], 0.0, 0.0
    for value in values:
        if value == value:
            mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        smoothed.append(mean / weight if value == value else value)
    return smoothed
