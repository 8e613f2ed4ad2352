from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt  # after the choice of a backend without a screen

from taskrobust.reporting.runs import RunRecord


def plot_risks_and_weights(runs: Sequence[RunRecord], path: Path) -> None:
    """Draw every task's training risk and weight over steps, one column a run.

    Args:
        runs: The runs, of the same tasks.
        path: The PNG file.
    """
    figure, axes = plt.subplots(
        2, len(runs), figsize=(5.5 * len(runs), 7), sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    tasks = list(runs[0].training[0]["risks"])
    colours = dict(zip(tasks, plt.colormaps["tab10"].colors * (1 + len(tasks) // 10), strict=False))
    for column, run in enumerate(runs):
        steps = [line["step"] for line in run.training]
        risk_axis, weight_axis = axes[:, column]
        for task in tasks:
            width = 2.4 if task == run.held_out[-1]["worst_task"] else 1.2
            risks = [_number(line["risks"][task]) for line in run.training]
            risk_axis.plot(steps, _smooth(risks), color=colours[task], linewidth=width, label=task)
            if task in run.held_out[-1]["risks"]:
                risk_axis.plot(run.held_out[-1]["step"], run.held_out[-1]["risks"][task], "o", color=colours[task])
            if task in run.training[0]["weights"]:  # not one of a fixed weight
                weights = [line["weights"][task] for line in run.training]
                weight_axis.plot(steps, _smooth(weights), color=colours[task], linewidth=width)
        risk_axis.set_title(run.label)
        weight_axis.set_xlabel("step")
    axes[0, 0].set_ylabel("risk (dots: held-out)")
    axes[1, 0].set_ylabel("weight")
    for axis in axes.flat:
        axis.grid(alpha=0.25)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


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
