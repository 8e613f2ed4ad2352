import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoisyTaskExample:
    r"""Two tasks that compete for one parameter: one can be learned, the other is mostly noise.

    .. math:: f_1(\theta) = \theta^2, \qquad f_2(\theta) = A (\theta - 1)^2 + \sigma^2

    The smallest risk of the noisy task is :math:`\sigma^2`. From a noise of 1, minimax on the risks has the solution 1,
    which gives up the first task for a gain of at most A in the second one. Minimax on the excess risks
    :math:`f_t - f_t^*` does not depend on the noise.

    Example:
        >>> example = NoisyTaskExample(noise=1.0)
        >>> round(example.worst_excess(example.theta_minimax), 3), round(example.worst_excess(example.theta_excess), 3)
        (1.0, 0.111)

    Args:
        noise: :math:`\sigma^2`, at least 0.
        curvature: A, in (0, 1].
    """

    noise: float
    curvature: float = 0.25

    def risks(self, theta: Tensor) -> Tensor:
        """Compute the risks of the two tasks, shape [2], at a parameter of shape [1]."""
        return torch.cat([theta**2, self.curvature * (theta - 1) ** 2 + self.noise])

    def excess(self, theta: Tensor) -> Tensor:
        """Compute the risks minus the smallest possible ones, shape [2]."""
        return self.risks(theta) - torch.tensor([0.0, self.noise], dtype=theta.dtype)

    @property
    def theta_average(self) -> float:
        r"""Minimizer of the mean risk, :math:`A / (1 + A)`."""
        return self.curvature / (1 + self.curvature)

    @property
    def theta_minimax(self) -> float:
        r"""Minimizer of the worst risk: where the risks are equal, but at most 1."""
        a, c = self.curvature, self.noise
        if a == 1:
            return min((1 + c) / 2, 1.0)
        crossing = (-a + math.sqrt(a * a + (1 - a) * (a + c))) / (1 - a)
        return min(crossing, 1.0)

    @property
    def theta_excess(self) -> float:
        r"""Minimizer of the worst excess risk, :math:`\sqrt A / (1 + \sqrt A)`."""
        root = math.sqrt(self.curvature)
        return root / (1 + root)

    def worst_excess(self, theta: float) -> float:
        """Compute the worst excess risk at a parameter."""
        return self.excess(torch.tensor([theta], dtype=torch.float64)).max().item()
