"""Minimax weights in your own training loop: three tasks that compete for a trunk with room for two."""

import torch
from torch import nn

from taskrobust import MultiTaskLoss, SoftmaxMinimax, Uniform, Weighting

SCALES = {"small": 1.0, "middle": 1.2, "large": 1.4}


def train(weighting: Weighting) -> dict[str, float]:
    torch.manual_seed(0)
    trunk = nn.Linear(3, 2)
    heads = nn.ModuleDict({task: nn.Linear(2, 1) for task in SCALES})
    criterion = MultiTaskLoss(list(SCALES), weighting)
    model = [*trunk.parameters(), *heads.parameters()]
    own = {"params": list(criterion.parameters()), "weight_decay": 0.0}  # of weightings that learn, such as Uncertainty
    optimizer = torch.optim.AdamW([{"params": model}, own], lr=1e-2)
    for _ in range(1000):
        x = torch.randn(256, 3)
        hidden = trunk(x)
        losses = {
            task: nn.functional.mse_loss(heads[task](hidden)[:, 0], scale * x[:, column])
            for column, (task, scale) in enumerate(SCALES.items())
        }
        optimizer.zero_grad()
        criterion(losses).backward()
        optimizer.step()
    return {task: risk.item() for task, risk in criterion.risks.items()}


def main() -> None:
    for weighting in (Uniform(), SoftmaxMinimax()):
        risks = train(weighting)
        values = ", ".join(f"{task} {risk:.2f}" for task, risk in risks.items())
        mean = sum(risks.values()) / len(risks)
        print(f"{type(weighting).__name__}: {values}; mean {mean:.2f}, worst {max(risks.values()):.2f}")


if __name__ == "__main__":
    main()
