import numpy as np
import torch
from torch import Tensor

from taskrobust.studies.theory.problems.base import MinimaxProblem


class ChebyshevRegression(MinimaxProblem):
    r"""Linear regression in the maximum norm: every observation is a task.

    .. math:: f_t(\theta) = |\langle a_t, \theta \rangle - b_t|

    The optimum is that of a linear program, whose simplex solution is exact.

    Args:
        num_tasks: Number of observations T, more than ``dimension``.
        dimension: Number of parameters d.
        seed: Seed of the observations. The first parameters are zero.
    """

    smoothness = 0.0  # between the kinks

    def __init__(self, num_tasks: int = 20, dimension: int = 10, seed: int = 0) -> None:
        from scipy.optimize import linprog

        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(num_tasks, dimension, generator=generator, dtype=torch.float64) / dimension**0.5
        noise = torch.randn(num_tasks, generator=generator, dtype=torch.float64)
        self.targets = self.features.sum(1) + noise
        features, targets = self.features.numpy(), self.targets.numpy()
        level = -np.ones((num_tasks, 1))
        solution = linprog(
            np.append(np.zeros(dimension), 1.0),
            A_ub=np.block([[features, level], [-features, level]]),
            b_ub=np.concatenate([targets, -targets]),
            bounds=(None, None),
            method="highs-ds",
        )
        super().__init__(torch.zeros(dimension, dtype=torch.float64), torch.from_numpy(solution.x[:-1].copy()))

    def risks(self, theta: Tensor) -> Tensor:
        """Absolute residuals."""
        residuals: Tensor = self.features @ theta - self.targets
        return residuals.abs()

    def lipschitz_within(self, distance: float) -> float:
        """The longest feature vector, at any distance."""
        return float(torch.linalg.vector_norm(self.features, dim=1).max())
