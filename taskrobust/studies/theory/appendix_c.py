import math
from dataclasses import dataclass

import torch
from torch import Tensor

from taskrobust.studies.theory.algorithm import tilted_mean


@dataclass(frozen=True)
class OutlierExample:
    r"""A one-parameter example in which averaging ignores an outlier: its optimum is 1, that of the others is 0.

    .. math:: f_1(\theta) = A (\theta - 1)^2, \qquad f_t(\theta) = \theta^2 \text{ for } t = 2, \dots, T

    The paper prints :math:`\theta_{\max} = \sqrt A / (\sqrt A - 1)`, where the two parabolas cross beyond 1. Their
    maximum is smaller at the other crossing, between 0 and 1, which is used here. The paper's values for the average
    are correct.

    Example:
        >>> example = OutlierExample.of_the_paper(100)
        >>> example.worst_risk(example.theta_average) > example.worst_risk(example.theta_minimax)
        True

    Args:
        num_tasks: Number of tasks T.
        curvature: :math:`A`, greater than 1 and, in the paper, less than T.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, appendix C.
    """

    num_tasks: int
    curvature: float

    @classmethod
    def of_the_paper(cls, num_tasks: int) -> "OutlierExample":
        """Create the paper's example, with A = T - 1.

        Args:
            num_tasks: Number of tasks T.
        """
        return cls(num_tasks, num_tasks - 1)

    @classmethod
    def of_the_largest_ratio(cls, num_tasks: int) -> "OutlierExample":
        r"""Create the example with the largest ratio, :math:`A = (\sqrt T - 1)^2`.

        Args:
            num_tasks: Number of tasks T, more than four.
        """
        return cls(num_tasks, (math.sqrt(num_tasks) - 1) ** 2)

    def risks(self, theta: Tensor) -> Tensor:
        """Compute the risks of the tasks, shape [T], at a parameter of shape []."""
        others = theta.square().expand(self.num_tasks - 1)
        return torch.cat([self.curvature * (theta - 1).square()[None], others])

    @property
    def theta_average(self) -> float:
        r"""Minimizer of the mean risk, :math:`A / (A + T - 1)`."""
        return self.curvature / (self.curvature + self.num_tasks - 1)

    @property
    def theta_minimax(self) -> float:
        r"""Minimizer of the worst risk, :math:`\sqrt A / (1 + \sqrt A)`."""
        return math.sqrt(self.curvature) / (1 + math.sqrt(self.curvature))

    @property
    def theta_paper(self) -> float:
        r"""The paper's value for ``theta_minimax``, :math:`\sqrt A / (\sqrt A - 1)`, which is the wrong crossing."""
        return math.sqrt(self.curvature) / (math.sqrt(self.curvature) - 1)

    def theta_softmax(self, alpha: float) -> float:
        """Compute the limit of softmax weighted gradient descent at a constant inverse temperature."""
        from scipy.optimize import minimize_scalar

        found = minimize_scalar(
            lambda theta: tilted_mean(self.risks(torch.tensor(theta, dtype=torch.float64)), alpha).item(),
            bounds=(0, 1),
            method="bounded",
            options={"xatol": 1e-12},
        )
        return float(found.x)

    def worst_risk(self, theta: float) -> float:
        """Compute the worst risk at a parameter."""
        return max(self.curvature * (theta - 1) ** 2, theta**2)

    @property
    def ratio(self) -> float:
        r"""Worst risk of the average divided by that of minimax, :math:`(T - 1)^2 (1 + \sqrt A)^2 / (A + T - 1)^2`.

        For :math:`A = T - 1`, it is :math:`(\sqrt{T - 1} + 1)^2 / 4`. The paper's value, with a minus instead of the
        plus, is a lower bound.
        """
        return self.worst_risk(self.theta_average) / self.worst_risk(self.theta_minimax)

    @property
    def ratio_paper(self) -> float:
        """The ratio at the paper's crossing."""
        return self.worst_risk(self.theta_average) / self.worst_risk(self.theta_paper)
