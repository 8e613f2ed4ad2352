from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from taskrobust.weighting.base import Weighting


class Gramian(Weighting):
    r"""Weights the tasks by a function of the Gram matrix of their gradients, such as the weightings of TorchJD.

    .. math:: w = f(G), \qquad G_{ij} = \langle \nabla_W r_i, \nabla_W r_j \rangle

    Any ``torchjd.aggregation.XWeighting`` of a Gram matrix works: ``UPGradWeighting``, ``MGDAWeighting``,
    ``PCGradWeighting``, ``CAGradWeighting``, ``AlignedMTLWeighting``, ``IMTLGWeighting`` and others. The result is that
    of TorchJD on the union batch of all ranks. In an accumulation window, weights lag by one step. The gradients are
    those with respect to ``shared``, for instance the parameters of the last shared layer.

    - The function gets the matrix of the present tasks only: a row of zeros would attract all weight in MGDA.
    - Random choices, as in PCGrad, depend on the step only and are the same on all ranks.
    - The state of a stateful function is part of the criterion's. Such a function is not called in steps in which a
      task is absent. The present tasks then keep their last weights.
    - Weights may be negative (IMTL-G). They are scaled such that their absolute values have the ``weight_sum``, and
      ``min_weight`` must be 0. ``weight_sum="paper"`` keeps their scale.
    - ``DisjointRows`` are an error. Gradients with respect to rows that belong to one task each are orthogonal, so that
      no function could see a conflict.

    Each step waits for the device, and each call costs one backward pass from every task to ``shared``.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> class LeastNormOfTwo(torch.nn.Module):  # MGDAWeighting, for two tasks
        ...     def forward(self, gramian):
        ...         (a, b), (_, d) = gramian.tolist()
        ...         share = min(max((d - b) / (a + d - 2 * b), 0), 1)
        ...         return gramian.new_tensor([share, 1 - share])
        >>> criterion = MultiTaskLoss(["noun", "verb"], Gramian(LeastNormOfTwo()))
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> total = criterion({"noun": weight[0] ** 2, "verb": weight[1] ** 2}, shared=[weight])
        >>> {task: round(value.item(), 2) for task, value in criterion.weights.items()}
        {'noun': 0.8, 'verb': 0.2}

    Args:
        inner: Module that computes the weights of the present tasks, shape [P], from their Gram matrix, shape [P, P],
            on the CPU. One with a ``reset`` method is stateful.
        every: Number of steps for which weights are kept.

    Raises:
        ValueError: If ``every`` is not positive.
    """

    values: Tensor
    step: Tensor

    signed = True
    needs_conflicts = True

    def __init__(self, inner: nn.Module, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"Expected every >= 1, got {every}.")
        self._inner = [inner]  # in a list, so that it is not moved to other devices with this module
        self.every = every

    @property
    def inner(self) -> nn.Module:
        """The function."""
        return self._inner[0]

    @property
    def needs_gramian(self) -> bool:  # type: ignore[override]
        """Whether the next step computes new weights."""
        return int(self.step) % self.every == 0

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return equal weights, and the state of the function."""
        equal = torch.full((self.num_tasks,), 1 / self.num_tasks)
        return {"values": equal, "step": torch.zeros((), dtype=torch.int64), **self._state_of_inner()}

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Return the weights of the last Gram matrix."""
        return self.values

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Count the step."""
        self.step.add_(1)

    def observe(self, gramian: Tensor) -> None:
        """Compute new weights."""
        matrix = gramian.detach().cpu()
        if not matrix.isfinite().all():
            return
        present = matrix.diag() > 0
        if not present.any() or (self._is_stateful and not present.all()):
            return
        step = int(self.step)
        self._restore_inner(is_first=step == 0)
        with torch.random.fork_rng([]):
            torch.manual_seed(step)
            weights = self.inner(matrix[present][:, present])
        self.values[present.to(self.values.device)] = weights.detach().to(self.values)
        for name, value in self._buffers_of_inner().items():
            getattr(self, f"inner_{name}").copy_(value)

    @property
    def _is_stateful(self) -> bool:
        return hasattr(self.inner, "reset")

    def _buffers_of_inner(self) -> dict[str, Tensor]:
        if not self._is_stateful:
            return {}
        return {name.replace(".", "_"): value for name, value in self.inner.named_buffers()}

    def _state_of_inner(self) -> dict[str, Tensor]:
        """Buffers of the function's state, of which it learns the shape in a call."""
        if not self._is_stateful:
            return {}
        with torch.device("cpu"), torch.random.fork_rng([]):
            self.inner(torch.eye(self.num_tasks))
            shapes = {name: value.shape for name, value in self._buffers_of_inner().items()}
        return {f"inner_{name}": torch.zeros(shape) for name, shape in shapes.items()}

    def _restore_inner(self, is_first: bool) -> None:
        if not self._is_stateful:
            return
        inner: Any = self.inner
        if is_first:
            inner.reset()
            return
        for name, value in self._buffers_of_inner().items():
            value.copy_(getattr(self, f"inner_{name}"))

    def extra_repr(self) -> str:
        """The function and the number of steps."""
        return f"inner={type(self.inner).__name__}, every={self.every}"
