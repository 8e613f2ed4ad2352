import torch
from torch import Tensor

from taskrobust.studies.theory.problems.base import MinimaxProblem
from taskrobust.studies.theory.problems.exact import epigraph_solution


class EnclosingBall(MinimaxProblem):
    r"""The center of the smallest ball around random points: every point is a task.

    .. math:: f_t(\theta) = \|\theta - p_t\|

    Args:
        num_tasks: Number of points T.
        dimension: Number of parameters d.
        seed: Seed of the points. The first parameters are the first point.
    """

    def __init__(self, num_tasks: int = 20, dimension: int = 10, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.points = torch.randn(num_tasks, dimension, generator=generator, dtype=torch.float64)
        center = epigraph_solution(lambda theta: (theta - self.points).square().sum(1), self.points.mean(0))
        super().__init__(self.points[0], center)

    @property
    def smoothness(self) -> float:
        """Curvature of a distance as large as the optimum's; at the points themselves there is a kink."""
        return 1 / self.value

    def risks(self, theta: Tensor) -> Tensor:
        """Distances from the points."""
        distances: Tensor = torch.linalg.vector_norm(theta - self.points, dim=1)
        return distances

    def lipschitz_within(self, distance: float) -> float:
        """One: a distance grows no faster than the step."""
        return 1.0
