"""Convex minimax problems of which the optimum is known. One file a family."""

from taskrobust.studies.theory.problems.base import MinimaxProblem
from taskrobust.studies.theory.problems.chebyshev import ChebyshevRegression
from taskrobust.studies.theory.problems.enclosing_ball import EnclosingBall
from taskrobust.studies.theory.problems.group_logistic import GroupLogistic
from taskrobust.studies.theory.problems.planted import PlantedMinimax
from taskrobust.studies.theory.problems.quadratics import Quadratics

__all__ = [
    "ChebyshevRegression",
    "EnclosingBall",
    "GroupLogistic",
    "MinimaxProblem",
    "PlantedMinimax",
    "Quadratics",
    "example_problems",
]


def example_problems(seed: int = 0) -> dict[str, MinimaxProblem]:
    """The eight problems on which commands and tests measure, by name.

    Args:
        seed: Seed of the problems.
    """
    return {
        "planted d=10": PlantedMinimax(dimension=10, seed=seed),
        "planted d=100": PlantedMinimax(num_tasks=50, dimension=100, active=20, curvature=0.0, seed=seed),
        "Chebyshev d=2": ChebyshevRegression(num_tasks=10, dimension=2, seed=seed),
        "Chebyshev d=10": ChebyshevRegression(num_tasks=20, dimension=10, seed=seed),
        "ball d=2": EnclosingBall(num_tasks=10, dimension=2, seed=seed),
        "ball d=10": EnclosingBall(num_tasks=20, dimension=10, seed=seed),
        "logistic d=10": GroupLogistic(seed=seed),
        "quadratics d=10": Quadratics(seed=seed),
    }
