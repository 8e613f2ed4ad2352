from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust._state import TaskModule


class BufferAdam(TaskModule):
    r"""Adam for one number per task, with its state in buffers.

    .. math:: x \leftarrow x - \eta \frac{m / (1 - \beta_1^k)}{\sqrt{v / (1 - \beta_2^k)} + \epsilon}

    Optimizers in ``torch.optim`` keep their state outside the ``state_dict`` of the strategy and count steps on the
    host.

    Args:
        lr: Learning rate :math:`\eta`.
        weight_decay: Coefficient of ``x`` in its gradient.

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, Algorithm 1.
    """

    first: Tensor
    second: Tensor
    steps: Tensor

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        self.weight_decay = weight_decay

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return zero moments and steps."""
        return {name: torch.zeros(self.num_tasks) for name in ("first", "second", "steps")}

    def step(self, values: Tensor, gradient: Tensor, active: Tensor) -> None:
        """Update the active elements of ``values`` in place. The moments of the others do not change.

        Args:
            values: Values of the tasks, shape [T].
            gradient: Gradient of the values, shape [T].
            active: Mask of the elements to update, shape [T].
        """
        gradient = gradient + self.weight_decay * values
        self.first.copy_(torch.where(active, 0.9 * self.first + 0.1 * gradient, self.first))
        self.second.copy_(torch.where(active, 0.999 * self.second + 0.001 * gradient**2, self.second))
        self.steps.add_(active.float())
        first = self.first / (1 - 0.9**self.steps)
        second = self.second / (1 - 0.999**self.steps)
        values.sub_(torch.where(active, self.lr * first / (second.sqrt() + 1e-8), 0))
