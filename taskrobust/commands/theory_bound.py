import math
from pathlib import Path
from typing import Annotated

from rich.progress import track

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1
from taskrobust._io.tables import markdown_table
from taskrobust.report.render import show_table
from taskrobust.studies.results import print_paths, save
from taskrobust.studies.theory.algorithm import Iterates, softmax_weighted_gradient_descent, take
from taskrobust.studies.theory.baselines import (
    accelerated_log_sum_exp,
    exponentiated_gradient,
    mirror_prox,
    solve_minimax,
    subgradient_descent,
)
from taskrobust.studies.theory.bounds import convergence_bound, step_size
from taskrobust.studies.theory.plots import plot_gaps
from taskrobust.studies.theory.problems import MinimaxProblem, example_problems
from taskrobust.weighting.schedules import Constant, Entropic, Schedule, Sharp, Theorem31


def theory_bound(
    output: Path = Path("runs/theory/bound"),
    most_steps: Annotated[int, AT_LEAST_1] = 1000,
    seed: Annotated[int, AT_LEAST_0] = 0,
) -> None:
    """Compare the gap of Algorithm 1 on eight convex problems with known optima with the bound of Theorem 3.1.

    Writes bound.md, bound.json and bound.png. Takes about half a minute on two cores.

    Args:
        output: Folder for the results.
        most_steps: Largest number of steps K. The smaller ones are 10, 32, 100 and so on.
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
    show_table(header, rows, title)
    show_table(other_header, other_rows, other_title)
    tables = [markdown_table(header, rows, title), markdown_table(other_header, other_rows, other_title)]
    save(output, "bound", tables, {"steps": steps, "bounds": bounds, "gaps": gaps, "others": others})
    plot_gaps(gaps, bounds, steps, output / "bound.png")
    print_paths(output, "bound", "bound.png")


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
    """Gaps by algorithm, with the step size and iterate (average or last) of its theory."""
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
