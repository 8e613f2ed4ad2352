"""Compare the gaps of Algorithm 1 with the bound of Theorem 3.1 on a problem with a known optimum."""

from taskrobust.studies.theory import (
    convergence_bound,
    softmax_weighted_gradient_descent,
    solve_minimax,
    step_size,
    take,
)
from taskrobust.studies.theory.problems import EnclosingBall
from taskrobust.weighting.schedules import Constant, Sharp, Theorem31


def main() -> None:
    problem = EnclosingBall(num_tasks=20, dimension=10)  # one task per point; its risk is the distance
    constants = problem.num_tasks, problem.radius, problem.lipschitz
    schedules = {
        "Theorem 3.1": Theorem31(*constants, problem.bound),
        "sharp": Sharp(*constants),
        "alpha = 1": Constant(1),
    }
    steps = 1000
    size = step_size(problem.radius, problem.lipschitz, steps)
    print(f"worst risk at the optimum {problem.value:.3f}, bound of the difference after {steps} steps: ", end="")
    print(f"{convergence_bound(problem.radius, problem.lipschitz, steps):.3f}")
    for name, alpha in schedules.items():
        found = take(softmax_weighted_gradient_descent(problem.risks, problem.start, alpha, size), steps)
        print(f"{name:<12} difference {problem.gap(found.average):.3f}")
    print(f"L-BFGS       difference {problem.gap(solve_minimax(problem.risks, problem.start)):.6f}")


if __name__ == "__main__":
    main()
