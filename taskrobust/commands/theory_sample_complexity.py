from pathlib import Path
from typing import Annotated

import numpy as np

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1, Range
from taskrobust._io.tables import markdown_table
from taskrobust.report.render import show_table
from taskrobust.studies.results import print_paths, save
from taskrobust.studies.theory.plots import plot_samples
from taskrobust.studies.theory.sample_complexity import (
    average_start,
    downstream_optima,
    minimax_start,
    outlier_tasks,
    samples_needed,
    simulated_samples_needed,
)


def theory_sample_complexity(
    output: Path = Path("runs/theory/sample-complexity"),
    delta: Annotated[float, Range(0, 1, open=True, below=True)] = 0.1,
    trials: Annotated[int, AT_LEAST_1] = 2000,
    seed: Annotated[int, AT_LEAST_0] = 0,
) -> None:
    """Count the samples that downstream tasks need after pre-training on the average and on the worst task.

    The upstream tasks are linear regressions with 40 parameters: nine similar tasks and an outlier. Downstream tasks
    are convex combinations of them, drawn from a Dirichlet distribution of concentration 1/4 for the mean. Writes
    sample-complexity.md, .json and .png. Takes seconds.

    Args:
        output: Folder for the results.
        delta: Probability of missing the target excess risk.
        trials: Number of data sets of the Monte Carlo estimate.
        seed: Seed of the data sets and downstream tasks.

    Raises:
        ValueError: If ``delta`` is not between 0 and 1.
    """
    optima = outlier_tasks()
    dimension = optima.shape[1]
    downstream = downstream_optima(optima, 5000, seed)
    eps = [0.25, 0.5, 1.0, 2.0, 2.5, 4.0, 6.0]
    fine = np.linspace(0.05, 7, 279).tolist()
    starts = {"average": average_start(optima), "minimax": minimax_start(optima)}
    counts: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    for name, start in starts.items():
        risks = (optima - start).square().sum(1) / 2
        worst = optima[risks.argmax()] - start
        downstream_risks = ((downstream - start).square().sum(1) / 2).numpy()

        def needed(values: np.ndarray, limits: list[float]) -> list[float]:
            return [float(samples_needed(values, limit, delta, dimension).mean()) for limit in limits]

        curves[name] = {"worst": needed(risks.max().numpy(), fine), "mean": needed(downstream_risks, fine)}
        counts[name] = {
            "worst": needed(risks.max().numpy(), eps),
            "simulated": [float(n) for n in simulated_samples_needed(worst, eps, delta, trials, seed)],
            "mean": needed(downstream_risks, eps),
            "worst risk": [risks.max().item()],
        }

    kinds = {"worst": "worst", "simulated": "trials", "mean": "mean"}
    header = ["eps", *(f"{label}: {start}" for label in kinds.values() for start in starts)]
    rows = [
        [f"{limit:g}"]
        + [f"{counts[start][kind][i]:.{1 if kind == 'mean' else 0}f}" for kind in kinds for start in starts]
        for i, limit in enumerate(eps)
    ]
    title = f"Samples needed: worst task (exact, by trials), mean of tasks; delta = {delta:g}"
    show_table(header, rows, title)
    save(output, "sample-complexity", [markdown_table(header, rows, title)], {"eps": eps, **counts})
    simulated = {start: counts[start]["simulated"] for start in starts}
    plot_samples(curves, fine, simulated, eps, output / "sample-complexity.png")
    print_paths(output, "sample-complexity", "sample-complexity.png")
