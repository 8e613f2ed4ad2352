from itertools import islice
from pathlib import Path
from typing import Annotated

import torch

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1
from taskrobust._io.tables import markdown_table
from taskrobust.report.render import show_table
from taskrobust.studies.results import print_paths, save
from taskrobust.studies.theory.algorithm import softmax_weighted_gradient_descent
from taskrobust.studies.theory.excess import NoisyTaskExample
from taskrobust.studies.theory.plots import plot_excess

_NOISE = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)


def theory_excess(
    output: Path = Path("runs/theory/excess"),
    alpha: Annotated[float, AT_LEAST_0] = 100.0,
    steps: Annotated[int, AT_LEAST_1] = 3000,
) -> None:
    """Compare minimax on risks and on excess risks, where one of two tasks is noisy.

    Writes excess.md, excess.json and excess.png. Takes seconds.

    Args:
        output: Folder for the results.
        alpha: Inverse temperature of softmax weighted gradient descent.
        steps: Its steps.
    """
    header = ["noise", "average", "minimax", "trained", "excess minimax", "trained on excess"]
    examples = [NoisyTaskExample(noise) for noise in _NOISE]
    rows, values = [], []
    for example in examples:
        trained = {}
        for name, risks in (("risks", example.risks), ("excess", example.excess)):
            iterates = softmax_weighted_gradient_descent(risks, torch.zeros(1, dtype=torch.float64), alpha, 1 / alpha)
            *_, last = islice(iterates, steps)
            trained[name] = example.worst_excess(last.item())
        worst = {
            "average": example.worst_excess(example.theta_average),
            "minimax": example.worst_excess(example.theta_minimax),
            "trained on risks": trained["risks"],
            "excess minimax": example.worst_excess(example.theta_excess),
            "trained on excess risks": trained["excess"],
        }
        rows.append([f"{example.noise:g}", *(f"{value:.3f}" for value in worst.values())])
        values.append({"noise": example.noise, "curvature": example.curvature, **worst})
    title = "Worst excess risk of two tasks, one of them noisy"
    show_table(header, rows, title)
    save(output, "excess", [markdown_table(header, rows, title)], values)
    plot_excess(NoisyTaskExample(0.5), output / "excess.png")
    print_paths(output, "excess", "excess.png")
