from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("agg")


from taskrobust.studies.theory.appendix_c import OutlierExample
from taskrobust.studies.theory.excess import NoisyTaskExample

AVERAGE, MINIMAX, PAPER, EXCESS = "tab:orange", "tab:blue", "tab:red", "tab:green"


def plot_gaps(
    gaps: Mapping[str, Mapping[str, Sequence[float]]],
    bounds: Mapping[str, Sequence[float]],
    steps: Sequence[int],
    path: Path,
) -> None:
    """Plot measured gaps and the bound, one panel per problem.

    Args:
        gaps: Gaps of the averaged iterate for each of ``steps``, by problem and schedule.
        bounds: Bounds of Theorem 3.1 for each of ``steps``, by problem.
        steps: Numbers of steps K.
        path: The PNG file.
    """
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, (len(gaps) + 1) // 2, figsize=(13, 6), sharex=True, layout="constrained")
    markers = ["o", "s", "^", "x"]
    colors = [MINIMAX, "tab:cyan", "tab:green", PAPER]
    for axis, (problem, curves) in zip(axes.flat, gaps.items(), strict=False):
        axis.loglog(steps, bounds[problem], color="black", linestyle="--", label=r"bound $2 R_0 L' / \sqrt{K}$")
        for (schedule, values), marker, color in zip(curves.items(), markers, colors, strict=True):
            axis.loglog(steps, values, color=color, marker=marker, markersize=4.5, linewidth=1.4, label=schedule)
        axis.set_title(problem, fontsize=11)
        axis.grid(alpha=0.25)
    for axis in axes[-1]:
        axis.set_xlabel("steps K")
    for axis in axes[:, 0]:
        axis.set_ylabel("gap of the averaged iterate")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_samples(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    eps: Sequence[float],
    simulated: Mapping[str, Sequence[float]],
    simulated_eps: Sequence[float],
    path: Path,
) -> None:
    """Plot the samples that the worst task and the mean over tasks need, one curve per pre-training.

    Args:
        curves: ``worst`` and ``mean`` by pre-training (average, minimax), in closed form for each of ``eps``.
        eps: Target excess risks.
        simulated: Samples of the worst task by pre-training, by Monte Carlo for each of ``simulated_eps``.
        simulated_eps: Target excess risks of the simulation.
        path: The PNG file.
    """
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    titles = {"worst": "the worst downstream task", "mean": "the mean over downstream tasks: the price"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        for (start, values), color in zip(curves.items(), (AVERAGE, MINIMAX), strict=True):
            style = "steps-post" if kind == "worst" else "default"
            axis.plot(eps, values[kind], color=color, linewidth=2, drawstyle=style, label=f"{start} pre-training")
            if kind == "worst":
                axis.plot(simulated_eps, simulated[start], "o", color=color, label="the same, simulated")
        axis.set_title(title, fontsize=11)
        axis.set_xlabel(r"target excess risk $\epsilon$")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("samples needed")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_outlier(example: OutlierExample, examples: Sequence[OutlierExample], path: Path) -> None:
    """Plot the two risks with the solutions of average and minimax, and the ratio of their worst risks.

    Args:
        example: The example whose risks are plotted.
        examples: The paper's examples for increasing numbers of tasks.
        path: The PNG file.
    """
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    theta = torch.linspace(-0.1, 1.65, 400)
    outlier, others = torch.stack([example.risks(value)[:2] for value in theta]).T
    left.plot(theta, outlier, color="0.35", label=rf"the outlier, ${example.curvature:g}\,(\theta - 1)^2$")
    left.plot(theta, others, color="0.65", label=rf"{example.num_tasks - 1} tasks, $\theta^2$")
    left.plot(theta, torch.maximum(outlier, others), color="black", linewidth=5, alpha=0.12, label="the worst")
    points = {
        "average": (example.theta_average, AVERAGE, "o"),
        "minimax": (example.theta_minimax, MINIMAX, "o"),
        "the paper's crossing": (example.theta_paper, PAPER, "X"),
    }
    for name, (place, color, marker) in points.items():
        worst = example.worst_risk(place)
        left.plot(place, worst, marker, color=color, markersize=9, linestyle="", label=f"{name}: worst {worst:.4g}")
    left.set_ylim(0, 4.2)
    left.set_xlabel(r"$\theta$")
    left.set_ylabel("risk")
    left.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.6, 1.0))
    tasks = np.array([one.num_tasks for one in examples])
    right.loglog(tasks, [one.ratio for one in examples], color=MINIMAX, marker="o", label="average over minimax")
    right.loglog(
        tasks, [one.ratio_paper for one in examples], color=PAPER, marker="X", linestyle=":", label="as printed"
    )
    right.set_xlabel("number of tasks T")
    right.set_ylabel("ratio of the worst risks")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_excess(example: NoisyTaskExample, path: Path) -> None:
    """Plot the two risks with the solutions of average, minimax and excess minimax, and their worst excess risk.

    Args:
        example: The example whose risks are plotted.
        path: The PNG file.
    """
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    theta = torch.linspace(-0.1, 1.1, 200)
    learnable, noisy = torch.stack([example.risks(value[None]) for value in theta]).T
    left.plot(theta, learnable, color="0.35", label="the learnable task")
    left.plot(theta, noisy, color="0.65", label=rf"the noisy task, $\sigma^2 = {example.noise:g}$")
    names = {"average": AVERAGE, "minimax": MINIMAX, "excess": EXCESS}
    labels = {"average": "average", "minimax": "minimax", "excess": "excess minimax"}
    for name, color in names.items():
        place = getattr(example, f"theta_{name}")
        left.axvline(
            place, color=color, linestyle="--", label=f"{labels[name]}: worst excess {example.worst_excess(place):.3f}"
        )
    left.set_xlabel(r"$\theta$")
    left.set_ylabel("risk")
    left.legend(frameon=False, fontsize=9)
    noises = np.linspace(0, 2, 101)
    for name, color in names.items():
        at_noise = [NoisyTaskExample(noise, example.curvature) for noise in noises]
        worst = [one.worst_excess(getattr(one, f"theta_{name}")) for one in at_noise]
        right.plot(noises, worst, color=color, label=labels[name])
    right.set_xlabel(r"noise $\sigma^2$")
    right.set_ylabel("worst excess risk")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=130)
    plt.close(figure)
