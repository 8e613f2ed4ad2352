import torch
from torch import Tensor

from taskrobust.studies.theory.problems.base import MinimaxProblem


class PlantedMinimax(MinimaxProblem):
    r"""Random tasks around an optimum that was chosen first, so that no solver is needed.

    .. math:: f_t(\theta) = v - s_t + \langle g_t, \theta - \theta^* \rangle + \frac{\mu}{2} \|\theta - \theta^*\|^2

    The active tasks have no slack :math:`s_t`, and a convex combination of their gradients :math:`g_t` is zero:
    that proves :math:`\theta^*` optimal. :math:`v` is just large enough for risks that are not negative.

    Args:
        num_tasks: Number of tasks T.
        dimension: Number of parameters d.
        active: Number of tasks that share the worst risk at the optimum, from 2 to T.
        curvature: :math:`\mu`, not negative.
        distance: Distance :math:`R_0` of the first parameters from the optimum.
        seed: Seed of tasks, optimum and start.

    Raises:
        ValueError: If ``active`` is not from 2 to ``num_tasks``.
    """

    def __init__(
        self,
        num_tasks: int = 10,
        dimension: int = 10,
        active: int = 4,
        curvature: float = 0.1,
        distance: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not 2 <= active <= num_tasks:
            raise ValueError(f"Expected from 2 to {num_tasks} active tasks, got {active}.")
        generator = torch.Generator().manual_seed(seed)
        solution, direction = torch.randn(2, dimension, generator=generator, dtype=torch.float64)
        super().__init__(solution + distance * direction / torch.linalg.vector_norm(direction), solution)
        self.curvature = curvature
        self.gradients = torch.randn(num_tasks, dimension, generator=generator, dtype=torch.float64)
        self.gradients /= torch.linalg.vector_norm(self.gradients, dim=1, keepdim=True)
        multipliers = torch.rand(active, generator=generator, dtype=torch.float64) + 0.1
        self.gradients[0] = -(multipliers[1:] @ self.gradients[1:active]) / multipliers[0]
        slack = torch.rand(num_tasks, generator=generator, dtype=torch.float64)
        slack[:active] = 0
        steepest = torch.linalg.vector_norm(self.gradients, dim=1).max().item()
        self.offsets = slack.max() + 2 * distance * steepest - slack

    @property
    def smoothness(self) -> float:
        """The curvature."""
        return self.curvature

    def risks(self, theta: Tensor) -> Tensor:
        """A plane and the same bowl for every task."""
        step = theta - self.solution
        risks: Tensor = self.offsets + self.gradients @ step + self.curvature / 2 * step.square().sum()
        return risks

    def lipschitz_within(self, distance: float) -> float:
        """The steepest plane and the rim of the bowl."""
        return float(torch.linalg.vector_norm(self.gradients, dim=1).max()) + self.curvature * distance
