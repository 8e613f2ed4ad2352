"""Accumulation over micro-batches whose gradient is that of the union batch, although their sizes differ."""

import torch
from torch import Tensor, nn

from taskrobust import MultiTaskLoss, TaskLosses, pool_batches


def losses_of(model: nn.Module, x: Tensor, owner: Tensor) -> TaskLosses:
    """Each row belongs to one of two tasks: sums of their squared errors, and how many there are."""
    errors = (model(x)[:, 0] - x.sum(1)).square()
    mine = owner == torch.arange(2)[:, None]
    return TaskLosses(torch.where(mine, errors, 0).sum(1), mine.sum(1))


def main() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    x, owner = torch.randn(12, 3), torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    micro_batches = [(x[:5], owner[:5]), (x[5:], owner[5:])]  # the first holds none of task 1

    criterion = MultiTaskLoss(["common", "rare"])
    criterion(losses_of(model, x, owner)).backward()
    union = model.weight.grad.clone()

    model.zero_grad()
    criterion = MultiTaskLoss(["common", "rare"])
    with torch.no_grad():
        window = pool_batches(losses_of(model, *micro_batch) for micro_batch in micro_batches)
    with criterion.accumulate(losses=window):
        for micro_batch in micro_batches:
            criterion(losses_of(model, *micro_batch)).backward()
    difference = (model.weight.grad - union).abs().max().item()
    print(f"weights {criterion.last.weight_vector.tolist()}, largest difference to the union batch {difference:.1e}")


if __name__ == "__main__":
    main()
