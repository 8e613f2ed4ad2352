"""Schedules for the inverse temperature of the softmax as functions of the step."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Schedule(ABC):
    """Base class of schedules, which map steps to values."""

    @abstractmethod
    def __call__(self, step: Tensor) -> Tensor:
        """Compute the value at a step.

        Args:
            step: Number of completed steps, an integer tensor of any shape on any device.
        """


class Constant(Schedule):
    """A constant value.

    Example:
        >>> Constant(2.0)(torch.tensor(100))
        tensor(2.)

    Args:
        value: The constant.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, step: Tensor) -> Tensor:
        """Return the constant."""
        return torch.full_like(step, self.value, dtype=torch.float32)


class Linear(Schedule):
    """Linear interpolation between two values, constant afterwards.

    Example:
        >>> Linear(0.0, 3.0, steps=100)(torch.tensor([0, 50, 200]))
        tensor([0.0000, 1.5000, 3.0000])

    Args:
        start: Value at step 0.
        end: Value from step ``steps`` on.
        steps: Number of steps of the interpolation.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"Expected a positive number of steps, got {steps}.")
        self.start = start
        self.end = end
        self.steps = steps

    def __call__(self, step: Tensor) -> Tensor:
        """Compute the interpolated value."""
        return self.start + (self.end - self.start) * (step / self.steps).clamp(max=1)


class Theorem31(Schedule):
    r"""The schedule of Theorem 3.1, for which softmax weighted gradient descent provably converges.

    .. math:: \alpha_k = \frac{4 \sqrt{k + 1}}{R_0 L'} \log \frac{4 T B \sqrt{k + 1}}{R_0 L'}

    The value is in inverse units of the risks. Use it with ``SoftmaxMinimax(alpha, relative=False)``.

    Example:
        >>> Theorem31(num_tasks=10, radius=4.0, lipschitz=1.0, bound=1.0)(torch.tensor([0, 99]))
        tensor([ 2.3026, 46.0517])

    Args:
        num_tasks: Number of tasks :math:`T`.
        radius: Distance :math:`R_0` from the initial parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the losses.
        bound: Bound :math:`B` on the losses.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Theorem 3.1.
    """

    def __init__(self, num_tasks: int, radius: float, lipschitz: float, bound: float) -> None:
        if min(num_tasks, radius, lipschitz, bound) <= 0:
            raise ValueError(
                f"Expected positive constants, got num_tasks={num_tasks}, radius={radius}, lipschitz={lipschitz}, "
                f"bound={bound}."
            )
        self.scale = 4 / (radius * lipschitz)
        self.log_constant = math.log(self.scale * num_tasks * bound)

    def __call__(self, step: Tensor) -> Tensor:
        r"""Compute :math:`\alpha_k`, clipped at 0."""
        root = (step + 1).float().sqrt()
        return (self.scale * root * (self.log_constant + root.log())).clamp(min=0)


class Entropic(Schedule):
    r"""A simple, slowly growing schedule that satisfies the bound of Theorem 3.1.

    .. math:: \alpha_k = \frac{2 \sqrt{k + 1} \log T}{R_0 L'}

    It suffices because the softmax-weighted risk is at most :math:`\log T / \alpha` below the worst one. No bound on
    the losses is needed.

    Example:
        >>> Entropic(num_tasks=10, radius=4.0, lipschitz=1.0)(torch.tensor([0, 99]))
        tensor([ 1.1513, 11.5129])

    Args:
        num_tasks: Number of tasks :math:`T`.
        radius: Distance :math:`R_0` from the initial parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the losses.
    """

    def __init__(self, num_tasks: int, radius: float, lipschitz: float) -> None:
        if min(num_tasks, radius, lipschitz) <= 0:
            raise ValueError(
                f"Expected positive constants, got num_tasks={num_tasks}, radius={radius}, lipschitz={lipschitz}."
            )
        self.scale = 2 * self._gap(num_tasks) / (radius * lipschitz)

    def __call__(self, step: Tensor) -> Tensor:
        r"""Compute :math:`\alpha_k`."""
        return self.scale * (step + 1).float().sqrt()

    def _gap(self, num_tasks: int) -> float:
        """Bound on alpha times the difference between the worst and the softmax-weighted risk."""
        return math.log(num_tasks)


class Sharp(Entropic):
    r"""The slowest schedule for which the proof of Theorem 3.1 holds.

    .. math:: \alpha_k = \frac{2 \sqrt{k + 1} W_0((T - 1) / e)}{R_0 L'}

    It uses the exact gap between the worst and the softmax-weighted risk. :math:`W_0` is Lambert's function. For ten
    tasks, its value is 1.10, compared with :math:`\log T = 2.30`.

    Example:
        >>> Sharp(num_tasks=10, radius=4.0, lipschitz=1.0)(torch.tensor([0, 99]))
        tensor([0.5505, 5.5050])

    Args:
        num_tasks: Number of tasks :math:`T`.
        radius: Distance :math:`R_0` from the initial parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the losses.
    """

    def _gap(self, num_tasks: int) -> float:
        argument = (num_tasks - 1) / math.e
        gap = math.log1p(argument)  # upper bound from which Newton's method converges
        for _ in range(20):
            gap -= (gap - argument * math.exp(-gap)) / (gap + 1)
        return gap
