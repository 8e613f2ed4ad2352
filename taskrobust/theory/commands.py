"""The commands of the theory: each measures what the paper says, and leaves a table and a plot."""

import math
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from taskrobust.theory.algorithm import Iterates, softmax_weighted_gradient_descent, take
from taskrobust.theory.appendix_c import OutlierExample
from taskrobust.theory.baselines import (
    accelerated_log_sum_exp,
    exponentiated_gradient,
    mirror_prox,
    subgradient_descent,
)
from taskrobust.theory.bounds import convergence_bound, step_size
from taskrobust.theory.plots import plot_gaps, plot_outlier, plot_samples
from taskrobust.theory.problems import MinimaxProblem, example_problems
from taskrobust.theory.results import markdown_table, save, show_table
from taskrobust.theory.sample_complexity import (
    average_start,
    downstream_optima,
    minimax_start,
    outlier_tasks,
    samples_needed,
    simulated_samples_needed,
)
from taskrobust.theory.solver import solve_minimax
from taskrobust.weighting.schedules import Constant, Entropic, Schedule, Sharp, Theorem31


def bound(output: Path = Path("runs/theory/bound"), most_steps: int = 1000, seed: int = 0) -> None:
    """Measure the gap of Algorithm 1 on eight convex problems of known optimum, beside Theorem 3.1's bound.

    Writes bound.md, bound.json and bound.png. Takes about half a minute on two cores.

    Args:
        output: Folder of the results.
        most_steps: Largest number of steps K; the smaller ones are 10, 32, 100 and so on.
        seed: Seed of the problems.

    Raises:
        ValueError: If ``most_steps`` is not positive.
    """
    if most_steps < 1:
        raise ValueError(f"Expected a positive number of steps, got {most_steps}.")
    steps = sorted({*(round(10 ** (k / 2)) for k in range(2, int(2 * math.log10(most_steps)) + 1)), most_steps})
    gaps: dict[str, dict[str, list[float]]] = {}
    bounds: dict[str, list[float]] = {}
    others: dict[str, dict[str, float]] = {}
    for name, problem in track(example_problems(seed).items(), "Problems", transient=True):
        bounds[name] = [convergence_bound(problem.radius, problem.lipschitz, k) for k in steps]
        gaps[name] = {
            label: [problem.gap(_algorithm_1(problem, schedule, k).average) for k in steps]
            for label, schedule in _schedules(problem).items()
        }
        others[name] = _other_algorithms(problem, most_steps)

    header = ["problem", "bound", *next(iter(gaps.values()))]
    rows = [
        [name, f"{bounds[name][-1]:.3f}", *(f"{values[-1]:.3f}" for values in gaps[name].values())] for name in gaps
    ]
    ratios = {
        schedule: max(
            gap / limit for name in gaps for gap, limit in zip(gaps[name][schedule], bounds[name], strict=True)
        )
        for schedule in header[2:]
    }
    rows.append(["worst gap/bound, all K", "1", *(f"{ratio:.2f}" for ratio in ratios.values())])
    title = f"Gap of the averaged iterate after {most_steps} steps"
    other_header = ["problem", *next(iter(others.values()))]
    other_rows = [[name, *(f"{gap:.0e}" for gap in row.values())] for name, row in others.items()]
    other_title = f"Gap of other algorithms after {most_steps} steps"
    show_table(title, header, rows)
    show_table(other_title, other_header, other_rows)
    tables = [markdown_table(title, header, rows), markdown_table(other_title, other_header, other_rows)]
    save(output, "bound", tables, {"steps": steps, "bounds": bounds, "gaps": gaps, "others": others})
    plot_gaps(gaps, bounds, steps, output / "bound.png")
    _say_where(output, "bound")


def sample_complexity(
    output: Path = Path("runs/theory/sample-complexity"), delta: float = 0.1, trials: int = 2000, seed: int = 0
) -> None:
    """Count the samples that downstream tasks need after pre-training on the average and on the worst task.

    Nine tasks that are alike and an outlier, linear regression with 40 parameters; downstream tasks are convex
    combinations of the ten, and the mean is over combinations drawn from a Dirichlet distribution of concentration 1/4.
    Writes sample-complexity.md, .json and .png. Takes seconds.

    Args:
        output: Folder of the results.
        delta: Probability that a task's training misses the excess risk.
        trials: Number of data sets of the Monte Carlo count.
        seed: Seed of the data sets and of the downstream tasks.

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
    show_table(title, header, rows)
    save(output, "sample-complexity", [markdown_table(title, header, rows)], {"eps": eps, **counts})
    simulated = {start: counts[start]["simulated"] for start in starts}
    plot_samples(curves, fine, simulated, eps, output / "sample-complexity.png")
    _say_where(output, "sample-complexity")


def appendix_c(output: Path = Path("runs/theory/appendix-c"), alpha: float = 1.0) -> None:
    """Compare average and minimax on the example of appendix C, corrected, with the values that the paper prints.

    Writes appendix-c.md, appendix-c.json and appendix-c.png. Takes a second.

    Args:
        output: Folder of the results.
        alpha: Inverse temperature of softmax weighted gradient descent that stays as it is, for comparison.
    """
    examples = [OutlierExample.of_the_paper(tasks) for tasks in (3, 10, 30, 100, 300, 1000)]
    header = ["T", "average", "minimax", "ratio", "as printed", f"alpha = {alpha:g}", "largest ratio, any A"]
    rows, values = [], []
    for example in examples:
        worst = {
            "average": example.worst_risk(example.theta_average),
            "minimax": example.worst_risk(example.theta_minimax),
            "ratio": example.ratio,
            "ratio as printed": example.ratio_paper,
            "softmax": example.worst_risk(example.theta_softmax(alpha)),
            "largest ratio": (math.sqrt(example.num_tasks) + 1) ** 2 / 4,
        }
        rows.append([str(example.num_tasks), *(f"{value:.4g}" for value in worst.values())])
        values.append({"num_tasks": example.num_tasks, "curvature": example.curvature, **worst})
    title = "Worst risk of the average and of minimax, A = T - 1"
    show_table(title, header, rows)
    save(output, "appendix-c", [markdown_table(title, header, rows)], values)
    plot_outlier(OutlierExample.of_the_paper(10), examples, output / "appendix-c.png")
    _say_where(output, "appendix-c")


def _schedules(problem: MinimaxProblem) -> dict[str, Schedule]:
    constants = problem.num_tasks, problem.radius, problem.lipschitz
    return {
        "paper": Theorem31(*constants, problem.bound),
        "entropic": Entropic(*constants),
        "sharp": Sharp(*constants),
        "alpha = 1": Constant(1.0),
    }


def _algorithm_1(problem: MinimaxProblem, schedule: Schedule, steps: int) -> Iterates:
    size = step_size(problem.radius, problem.lipschitz, steps)
    return take(softmax_weighted_gradient_descent(problem.risks, problem.start, schedule, size), steps)


def _other_algorithms(problem: MinimaxProblem, steps: int) -> dict[str, float]:
    """Gaps by algorithm, with the step sizes and of the iterate (average or last) that its theory names."""
    risks, start = problem.risks, problem.start
    radius, lipschitz, smoothness = problem.radius, problem.lipschitz, problem.smoothness
    size = step_size(radius, lipschitz, steps)
    entropy = math.log(problem.num_tasks)
    alpha = steps * math.sqrt(entropy / 2) / (radius * lipschitz)
    weight_size = math.sqrt(2 * entropy / steps) / problem.bound
    found = {
        "subgradient": take(subgradient_descent(risks, start, size), steps).average,
        "group DRO": take(exponentiated_gradient(risks, start, size, weight_size), steps).average,
        "mirror-prox": take(mirror_prox(risks, start, radius, lipschitz, smoothness), steps).average,
        "Nesterov": take(accelerated_log_sum_exp(risks, start, alpha, lipschitz, smoothness), steps).last,
        "L-BFGS": solve_minimax(risks, start),
    }
    return {name: problem.gap(theta) for name, theta in found.items()}


def _say_where(output: Path, name: str) -> None:
    Console().print(f"Table: {output / name}.md, {output / name}.json. Plot: {output / name}.png", soft_wrap=True)
