"""Schedules of the softmax's inverse temperature, as functions of the step."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Schedule(ABC):
    """A number that depends on the step."""

    @abstractmethod
    def __call__(self, step: Tensor) -> Tensor:
        """Value at a step.

        Args:
            step: Steps taken so far, an integer tensor of any shape on any device.
        """


class Constant(Schedule):
    """The same value at every step.

    Example:
        >>> Constant(2.0)(torch.tensor(100))
        tensor(2.)

    Args:
        value: The value.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, step: Tensor) -> Tensor:
        """The value."""
        return torch.full_like(step, self.value, dtype=torch.float32)


class Linear(Schedule):
    """From one value to another on a straight line, then the second one.

    Example:
        >>> Linear(0.0, 3.0, steps=100)(torch.tensor([0, 50, 200]))
        tensor([0.0000, 1.5000, 3.0000])

    Args:
        start: Value at step 0.
        end: Value at step ``steps`` and after.
        steps: Number of steps from one to the other.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"Expected a positive number of steps, got {steps}.")
        self.start = start
        self.end = end
        self.steps = steps

    def __call__(self, step: Tensor) -> Tensor:
        """The value on the line."""
        return self.start + (self.end - self.start) * (step / self.steps).clamp(max=1)


class Theorem31(Schedule):
    r"""The growth with which softmax weighted gradient descent is proven to converge.

    .. math:: \alpha_k = \frac{4 \sqrt{k + 1}}{R_0 L'} \log \frac{4 T B \sqrt{k + 1}}{R_0 L'}

    It is in one over the unit of the risks: use it with ``SoftmaxMinimax(alpha, relative=False)``.

    Example:
        >>> Theorem31(num_tasks=10, radius=4.0, lipschitz=1.0, bound=1.0)(torch.tensor([0, 99]))
        tensor([ 2.3026, 46.0517])

    Args:
        num_tasks: Number of tasks :math:`T`.
        radius: Distance :math:`R_0` from the first parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the losses.
        bound: Bound :math:`B` of the losses.

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
        r""":math:`\alpha_k`, never negative."""
        root = (step + 1).float().sqrt()
        return (self.scale * root * (self.log_constant + root.log())).clamp(min=0)


class Entropic(Schedule):
    r"""The slowest simple growth that gives the bound of Theorem 3.1.

    .. math:: \alpha_k = \frac{2 \sqrt{k + 1} \log T}{R_0 L'}

    It suffices because the softmax weighted risk misses the worst one by :math:`\log T / \alpha` at most. It needs no
    bound of the losses.

    Example:
        >>> Entropic(num_tasks=10, radius=4.0, lipschitz=1.0)(torch.tensor([0, 99]))
        tensor([ 1.1513, 11.5129])

    Args:
        num_tasks: Number of tasks :math:`T`.
        radius: Distance :math:`R_0` from the first parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the losses.
    """

    def __init__(self, num_tasks: int, radius: float, lipschitz: float) -> None:
        if min(num_tasks, radius, lipschitz) <= 0:
            raise ValueError(
                f"Expected positive constants, got num_tasks={num_tasks}, radius={radius}, lipschitz={lipschitz}."
            )
        self.scale = 2 * self._gap(num_tasks) / (radius * lipschitz)

    def __call__(self, step: Tensor) -> Tensor:
        r""":math:`\alpha_k`."""
        return self.scale * (step + 1).float().sqrt()

    def _gap(self, num_tasks: int) -> float:
        """Bound of the worst risk minus the softmax weighted one, times alpha."""
        return math.log(num_tasks)


class Sharp(Entropic):
    r"""The slowest growth that gives the bound of Theorem 3.1 by its proof: no smaller gap holds for all risks.

    .. math:: \alpha_k = \frac{2 \sqrt{k + 1} W_0((T - 1) / e)}{R_0 L'}

    :math:`W_0` is Lambert's function. For ten tasks it is 1.10, where :math:`\log T = 2.30`.

    Example:
        >>> Sharp(num_tasks=10, radius=4.0, lipschitz=1.0)(torch.tensor([0, 99]))
        tensor([0.5505, 5.5050])

    Args:
        num_tasks: Number of tasks :math:`T`.
        radius: Distance :math:`R_0` from the first parameters to the optimum.
        lipschitz: Lipschitz constant :math:`L'` of the losses.
    """

    def _gap(self, num_tasks: int) -> float:
        argument = (num_tasks - 1) / math.e
        gap = math.log1p(argument)  # above Lambert's function, from where Newton's steps fall to it
        for _ in range(20):
            gap -= (gap - argument * math.exp(-gap)) / (gap + 1)
        return gap
