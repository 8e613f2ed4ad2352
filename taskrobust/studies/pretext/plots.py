from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")


from taskrobust.studies.pretext.synthetic import LABELS, Errors

_AXES = {
    "n0": (r"(a) extra samples ($\lambda = 0.3$, $d_f = 12$)", "extra samples $n_0$"),
    "lambda": ("(b) penalty ($n_0 = 500$, $d_f = 12$)", r"penalty $\lambda$"),
    "d_f": (r"(c) features ($n_0 = 100$, $\lambda = 0.3$)", "features $d_f$"),
    "hidden": (r"(d) a network's width ($n_0 = 1000$, $\lambda = 0.3$)", "hidden neurons"),
}
_LINES = {
    "processed": ("processor, infinitely many labels", "#b2182b", "o-"),
    "boosted": (f"processor, {LABELS} labels", "#ef8a62", "s-"),
    "plain": (f"plain SSL, {LABELS} labels", "#2166ac", "-"),
    "pooled": (f"plain SSL, {LABELS} + $n_0$ labels", "#2166ac", "D--"),
}


def plot_synthetic(curves: Mapping[str, Mapping[float, Errors]], path: Path) -> None:
    """Plot the errors over n0, λ, d_f and width, one panel each.

    Args:
        curves: Errors by axis and value.
        path: The PNG file.
    """
    from matplotlib import pyplot as plt

    rows = (len(curves) + 1) // 2
    figure, grid = plt.subplots(rows, 2, figsize=(9.5, 3.9 * rows), sharey=True, squeeze=False, layout="constrained")
    axes = grid.flat
    for axis, (name, points) in zip(axes, curves.items(), strict=True):
        values = list(points)
        places: Sequence[float] = range(len(values)) if name == "lambda" else values
        for field, (label, color, style) in _LINES.items():
            errors = [getattr(point, field) for point in points.values()]
            axis.plot(places, errors, style, color=color, label=label, linewidth=1.8, markersize=4)
        for height, text, alignment in ((1.0, "a constant", "bottom"), (0.5, "the best possible", "top")):
            axis.axhline(height, color="0.45", linewidth=0.9, linestyle=":")
            right = (0.98, height + (0.01 if alignment == "bottom" else -0.01))
            if name == "n0":
                axis.text(*right, text, transform=axis.get_yaxis_transform(), ha="right", va=alignment, fontsize=8)
        if name == "lambda":
            axis.set_xticks(places, [f"{value:g}" for value in values])
        else:
            axis.set_xscale("log")
            ticks = [value for value in values if value not in (60, 80, 120)]
            axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axis.minorticks_off()
        title, label = _AXES[name]
        axis.set_title(title)
        axis.set_xlabel(label)
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in grid[:, 0]:
        axis.set_ylabel("squared error of y on new samples")
    grid[0, 0].set_ylim(0.44, 1.35)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_cifar10(ssl: Mapping[str, Any], processors: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Plot the accuracies over n0, one panel for all labeled images and one for half of them.

    Args:
        ssl: The cell of plain self-supervised learning.
        processors: The cells with a processor by n0.
        path: The PNG file.
    """
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), sharey=True, layout="constrained")
    sizes = list(processors)
    for axis, row, title in zip(axes, ("full", "half"), ("all labeled images", "half of them"), strict=True):
        pooled = [100 * ssl["pooled"][row][str(size)] for size in sizes]
        axis.plot(sizes, pooled, "D--", color="#2166ac", markersize=4, label="plain SSL, probe on $n_0$ more labels")
        axis.axhline(100 * ssl[row]["hidden"], color="#2166ac", label="plain SSL")
        for field, label, color, style in (
            ("processed", "probe on f(x), before the pretext task", "#fdae61", "^-"),
            ("hidden", "processor, then SSL", "#b2182b", "o-"),
            ("predicted", "processor, then SSL: probe on its predictions", "#7f7f7f", "s-"),
        ):
            accuracies = [100 * cell[row][field] for cell in processors.values()]
            axis.plot(sizes, accuracies, style, color=color, markersize=4, label=label)
        axis.axhline(10, color="0.45", linewidth=0.9, linestyle=":")
        axis.text(sizes[0], 10.6, "chance, and the slides with a processor", color="0.35", fontsize=8)
        axis.set_title(title)
        axis.set_xlabel("extra images $n_0$")
        axis.set_xticks(sizes)
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy on test images, %")
    axes[0].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
