"""Inner products of the gradients of the tasks with respect to shared tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from taskrobust.outputs import DisjointRows, Shared
from taskrobust.ranks import Ranks


class GramianEstimator:
    r"""Accumulates the Gram matrix of the tasks' gradients over micro-batches and ranks.

    .. math:: G_{ij} = \langle \nabla_W r_i, \nabla_W r_j \rangle

    Parameters are the same on all ranks and micro-batches, so their gradients are summed before the products are
    computed (averaging the norms of the parts would be wrong by half or more). Activations differ, so their products
    are summed.

    Args:
        num_tasks: Number of tasks T.
        ranks: The ranks that process parts of the same batch.
    """

    def __init__(self, num_tasks: int, ranks: Ranks) -> None:
        self.num_tasks = num_tasks
        self.ranks = ranks
        self.jacobian: Tensor | None = None
        self.products: Tensor | None = None

    def add(self, risks: Tensor, shared: Shared) -> None:
        """Add a batch.

        Args:
            risks: Part of this batch in the risks, shape [T]. Their gradient is R times the share of this rank in the
                global gradient, where R is the number of ranks.
            shared: Tensors that the tasks share, in the graph of ``risks``.
        """
        ranks = self.ranks.size
        if isinstance(shared, DisjointRows):
            (gradient,) = torch.autograd.grad(risks.sum() / ranks, shared.activation, retain_graph=True)
            squares = gradient.float().flatten(1).square().sum(1)
            owned = torch.arange(self.num_tasks, device=squares.device)[:, None] == shared.owner[None]
            self._add_products(torch.where(owned, squares, 0).sum(1).diag())
            return
        tensors = [shared] if isinstance(shared, Tensor) else list(shared)
        rows = [torch.autograd.grad(risk, tensors, retain_graph=True, allow_unused=True) for risk in risks / ranks]
        for number, column in enumerate(zip(*rows, strict=True)):
            if all(gradient is None for gradient in column):
                raise ValueError(
                    f"Expected shared tensors that the losses depend on, got no gradient for number {number}, of shape "
                    f"{list(tensors[number].shape)}."
                )
        jacobian = torch.stack([_flat(row, tensors) for row in rows])
        if isinstance(tensors[0], nn.Parameter):
            self.jacobian = jacobian if self.jacobian is None else self.jacobian + jacobian
        else:
            self._add_products(jacobian @ jacobian.T)

    def gramian(self) -> Tensor:
        """Compute the Gram matrix of all added batches on all ranks, shape [T, T]."""
        parts = self.products if self.jacobian is None else self.jacobian
        assert parts is not None
        parts = self.ranks.sum(parts)
        return parts if self.jacobian is None else parts @ parts.T

    def _add_products(self, products: Tensor) -> None:
        self.products = products if self.products is None else self.products + products


def _flat(gradients: Sequence[Tensor | None], tensors: Sequence[Tensor]) -> Tensor:
    """Row of the Jacobian in float32, with zeros for tensors on which the task does not depend, e.g. if absent."""
    parts = [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, tensors, strict=True)]
    return torch.cat([part.float().flatten() for part in parts])
