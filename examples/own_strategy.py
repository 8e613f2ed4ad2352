"""Your own weighting in ten lines: the k worst tasks share the weight."""

import torch
from torch import Tensor

from taskrobust import MultiTaskLoss, Weighting


class WorstK(Weighting):
    def __init__(self, k: int = 2) -> None:
        super().__init__()
        self.k = k

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        present_risks = risks.masked_fill(counts == 0, -torch.inf)
        return torch.zeros_like(risks).index_fill(0, present_risks.topk(self.k).indices, 1.0)


def main() -> None:
    criterion = MultiTaskLoss(["noun", "verb", "adverb"], WorstK(k=2))
    losses = {"noun": torch.tensor(3.0, requires_grad=True), "verb": torch.tensor(1.0), "adverb": torch.tensor(2.0)}
    total = criterion(losses)
    total.backward()
    weights = {task: weight.item() for task, weight in criterion.weights.items()}
    print(f"total {total.item():.2f}, weights {weights}, worst task {criterion.last.worst_task}")


if __name__ == "__main__":
    main()
