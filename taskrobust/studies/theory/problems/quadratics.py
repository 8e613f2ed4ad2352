import torch
from torch import Tensor

from taskrobust.studies.theory.problems.base import MinimaxProblem
from taskrobust.studies.theory.problems.exact import epigraph_solution


class Quadratics(MinimaxProblem):
    r"""Bowls of different shapes around different points, as risks of linear regressions are.

    .. math:: f_t(\theta) = \frac12 (\theta - \theta_t^*)^\top H_t (\theta - \theta_t^*)

    Args:
        num_tasks: Number of tasks T.
        dimension: Number of parameters d.
        seed: Seed of shapes, points and start.
    """

    def __init__(self, num_tasks: int = 5, dimension: int = 10, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        factors = torch.randn(num_tasks, dimension, dimension, generator=generator, dtype=torch.float64)
        self.hessians = factors @ factors.mT / dimension + 0.1 * torch.eye(dimension, dtype=torch.float64)
        self.minima = torch.randn(num_tasks, dimension, generator=generator, dtype=torch.float64) / dimension**0.5
        start = torch.randn(dimension, generator=generator, dtype=torch.float64) / dimension**0.5
        super().__init__(start, epigraph_solution(self.risks, self.minima.mean(0)))

    @property
    def smoothness(self) -> float:
        """The largest curvature of a task."""
        return float(torch.linalg.matrix_norm(self.hessians, ord=2).max())

    def risks(self, theta: Tensor) -> Tensor:
        """Heights in the bowls."""
        step = theta - self.minima
        return torch.einsum("td,tde,te->t", step, self.hessians, step) / 2

    def lipschitz_within(self, distance: float) -> float:
        """Each task's steepness at the optimum, and what its curvature adds up to the rim."""
        gradients = torch.einsum("tde,te->td", self.hessians, self.solution - self.minima)
        curvatures = torch.linalg.matrix_norm(self.hessians, ord=2)
        return float((torch.linalg.vector_norm(gradients, dim=1) + curvatures * distance).max())
