"""Convex minimax problems whose optimum is known."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from taskrobust.studies.theory.exact import epigraph_solution


class MinimaxProblem(ABC):
    r"""A convex problem :math:`\min_\theta \max_t f_t(\theta)` with the constants of Theorem 3.1.

    Args:
        start: Initial parameters :math:`\theta_0`, shape [d], float64.
        solution: Optimum :math:`\theta^*`, shape [d], float64.
    """

    def __init__(self, start: Tensor, solution: Tensor) -> None:
        self.start = start
        self.solution = solution

    @abstractmethod
    def risks(self, theta: Tensor) -> Tensor:
        """Compute the risks of the tasks, shape [T], nonnegative.

        Args:
            theta: Parameters, shape [d].
        """

    @abstractmethod
    def lipschitz_within(self, distance: float) -> float:
        r"""Compute a Lipschitz constant of all risks on a ball around :math:`\theta^*`.

        Args:
            distance: Radius of the ball.
        """

    @property
    @abstractmethod
    def smoothness(self) -> float:
        """Lipschitz constant of the gradients of the risks."""

    @property
    def num_tasks(self) -> int:
        """Number of tasks T."""
        return len(self.risks(self.solution))

    @property
    def value(self) -> float:
        r"""Worst risk :math:`F^* = \max_t f_t(\theta^*)` of the optimum."""
        return self.risks(self.solution).max().item()

    @property
    def radius(self) -> float:
        r"""Distance :math:`R_0` from the initial parameters to the optimum."""
        return float(torch.linalg.vector_norm(self.start - self.solution))

    @property
    def lipschitz(self) -> float:
        r"""Constant :math:`L'` on the ball of radius :math:`2 R_0` around the optimum, which no iterate leaves."""
        return self.lipschitz_within(2 * self.radius)

    @property
    def bound(self) -> float:
        r"""Bound :math:`B` on the risks on that ball."""
        return self.value + 2 * self.radius * self.lipschitz

    def gap(self, theta: Tensor) -> float:
        r"""Compute the excess of the worst risk over that of the optimum, :math:`F(\theta) - F^*`."""
        return self.risks(theta).max().item() - self.value


class PlantedMinimax(MinimaxProblem):
    r"""Random tasks constructed around a known optimum.

    .. math:: f_t(\theta) = v - s_t + \langle g_t, \theta - \theta^* \rangle + \frac{\mu}{2} \|\theta - \theta^*\|^2

    The active tasks have no slack :math:`s_t`, and a convex combination of their gradients :math:`g_t` is zero, which
    proves that :math:`\theta^*` is optimal. :math:`v` is just large enough to make the risks nonnegative.

    Args:
        num_tasks: Number of tasks T.
        dimension: Number of parameters d.
        active: Number of tasks that share the worst risk at the optimum, from 2 to T.
        curvature: :math:`\mu`, nonnegative.
        distance: Distance :math:`R_0` of the initial parameters from the optimum.
        seed: Seed of the tasks, optimum and start.

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
        """Planes plus a common paraboloid."""
        step = theta - self.solution
        risks: Tensor = self.offsets + self.gradients @ step + self.curvature / 2 * step.square().sum()
        return risks

    def lipschitz_within(self, distance: float) -> float:
        """Slope of the steepest plane plus that of the paraboloid at the given distance."""
        return float(torch.linalg.vector_norm(self.gradients, dim=1).max()) + self.curvature * distance


class ChebyshevRegression(MinimaxProblem):
    r"""Linear regression in the maximum norm, with one task per observation.

    .. math:: f_t(\theta) = |\langle a_t, \theta \rangle - b_t|

    The optimum is the exact simplex solution of a linear program.

    Args:
        num_tasks: Number of observations T, more than ``dimension``.
        dimension: Number of parameters d.
        seed: Seed of the observations. The initial parameters are zero.
    """

    smoothness = 0.0  # away from the kinks

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
        """Norm of the longest feature vector, for any distance."""
        return float(torch.linalg.vector_norm(self.features, dim=1).max())


class EnclosingBall(MinimaxProblem):
    r"""The smallest ball that encloses random points, with one task per point.

    .. math:: f_t(\theta) = \|\theta - p_t\|

    Args:
        num_tasks: Number of points T.
        dimension: Number of parameters d.
        seed: Seed of the points. The initial parameters are the first point.
    """

    def __init__(self, num_tasks: int = 20, dimension: int = 10, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.points = torch.randn(num_tasks, dimension, generator=generator, dtype=torch.float64)
        center = epigraph_solution(lambda theta: (theta - self.points).square().sum(1), self.points.mean(0))
        super().__init__(self.points[0], center)

    @property
    def smoothness(self) -> float:
        """Curvature of a risk at the optimal value; the risks have kinks at the points."""
        return 1 / self.value

    def risks(self, theta: Tensor) -> Tensor:
        """Distances to the points."""
        distances: Tensor = torch.linalg.vector_norm(theta - self.points, dim=1)
        return distances

    def lipschitz_within(self, distance: float) -> float:
        """1, for any distance."""
        return 1.0


class GroupLogistic(MinimaxProblem):
    r"""Logistic regression on groups whose labels follow different rules, with one task per group.

    .. math:: f_t(\theta) = \frac1n \sum_i \log(1 + \exp(-y_{ti} \langle x_{ti}, \theta \rangle))
        + \frac{\mu}{2} \|\theta\|^2

    Args:
        num_tasks: Number of groups T.
        dimension: Number of parameters d.
        samples: Number of samples n per group.
        ridge: Ridge penalty :math:`\mu`, which makes the optimum unique.
        seed: Seed of the samples. The initial parameters are zero.
    """

    def __init__(
        self, num_tasks: int = 5, dimension: int = 10, samples: int = 50, ridge: float = 0.01, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(num_tasks, samples, dimension, generator=generator, dtype=torch.float64)
        common = torch.randn(dimension, generator=generator, dtype=torch.float64)
        rules = common + torch.randn(num_tasks, dimension, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_tasks, samples, generator=generator, dtype=torch.float64)
        labels = (torch.einsum("tnd,td->tn", features, rules) + noise).sign()
        self.ridge = ridge
        self.signed_features = features * labels[..., None]
        start = torch.zeros(dimension, dtype=torch.float64)
        super().__init__(start, epigraph_solution(self.risks, start))

    @property
    def smoothness(self) -> float:
        """A quarter of the largest second moment, plus the ridge."""
        return self._largest_moment() / 4 + self.ridge

    def risks(self, theta: Tensor) -> Tensor:
        """Mean logistic losses plus the ridge penalty."""
        return softplus(-self.signed_features @ theta).mean(1) + self.ridge / 2 * theta.square().sum()

    def lipschitz_within(self, distance: float) -> float:
        """Root of the largest second moment, plus the slope of the ridge penalty at the given distance."""
        rim = float(torch.linalg.vector_norm(self.solution)) + distance
        return math.sqrt(self._largest_moment()) + self.ridge * rim

    def _largest_moment(self) -> float:
        """Largest second moment of the features of a group in any direction."""
        moments = torch.einsum("tnd,tne->tde", self.signed_features, self.signed_features)
        return float(torch.linalg.eigvalsh(moments).max()) / self.signed_features.shape[1]


class Quadratics(MinimaxProblem):
    r"""Quadratic risks with different Hessians and minima, like those of linear regressions.

    .. math:: f_t(\theta) = \frac12 (\theta - \theta_t^*)^\top H_t (\theta - \theta_t^*)

    Args:
        num_tasks: Number of tasks T.
        dimension: Number of parameters d.
        seed: Seed of the Hessians, minima and start.
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
        """Largest curvature of a task."""
        return float(torch.linalg.matrix_norm(self.hessians, ord=2).max())

    def risks(self, theta: Tensor) -> Tensor:
        """Values of the quadratic forms."""
        step = theta - self.minima
        return torch.einsum("td,tde,te->t", step, self.hessians, step) / 2

    def lipschitz_within(self, distance: float) -> float:
        """Norm of a gradient at the optimum plus its largest change within the distance, maximum over tasks."""
        gradients = torch.einsum("tde,te->td", self.hessians, self.solution - self.minima)
        curvatures = torch.linalg.matrix_norm(self.hessians, ord=2)
        return float((torch.linalg.vector_norm(gradients, dim=1) + curvatures * distance).max())


def example_problems(seed: int = 0) -> dict[str, MinimaxProblem]:
    """Create the eight problems of the commands and tests, by name.

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
