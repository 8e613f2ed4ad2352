from abc import ABC, abstractmethod

import torch
from torch import Tensor


class MinimaxProblem(ABC):
    r"""A convex problem :math:`\min_\theta \max_t f_t(\theta)` with all that Theorem 3.1 asks for.

    Args:
        start: First parameters :math:`\theta_0`, shape [d], float64.
        solution: Optimum :math:`\theta^*`, shape [d], float64.
    """

    def __init__(self, start: Tensor, solution: Tensor) -> None:
        self.start = start
        self.solution = solution

    @abstractmethod
    def risks(self, theta: Tensor) -> Tensor:
        """Risks of the tasks, shape [T], not negative.

        Args:
            theta: Parameters, shape [d].
        """

    @abstractmethod
    def lipschitz_within(self, distance: float) -> float:
        r"""Lipschitz constant of every task's risk on the ball of a radius around :math:`\theta^*`."""

    @property
    @abstractmethod
    def smoothness(self) -> float:
        """Lipschitz constant of the gradients of the tasks' risks."""

    @property
    def num_tasks(self) -> int:
        """Number of tasks T."""
        return len(self.risks(self.solution))

    @property
    def value(self) -> float:
        r"""The optimum's worst risk :math:`F^* = \max_t f_t(\theta^*)`."""
        return self.risks(self.solution).max().item()

    @property
    def radius(self) -> float:
        r"""Distance :math:`R_0` from the first parameters to the optimum."""
        return float(torch.linalg.vector_norm(self.start - self.solution))

    @property
    def lipschitz(self) -> float:
        r""":math:`L'` on the ball of radius :math:`2 R_0` around the optimum, which no iterate leaves."""
        return self.lipschitz_within(2 * self.radius)

    @property
    def bound(self) -> float:
        r"""Bound :math:`B` of the risks on that ball."""
        return self.value + 2 * self.radius * self.lipschitz

    def gap(self, theta: Tensor) -> float:
        r"""How much worse the worst risk is than that of the optimum, :math:`F(\theta) - F^*`."""
        return self.risks(theta).max().item() - self.value
