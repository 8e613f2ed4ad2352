"""Weights from the gradients of the tasks: minimax on risks beside UPGrad and MGDA of TorchJD.

Needs `pip install "torchjd[quadprog-projector]"`. The same three tasks as in own_loop.py compete for a trunk with room
for two. Gradient methods avoid steps that harm a task. They do not ask which task is worst.
"""

import torch
from torch import nn
from torchjd.aggregation import MGDAWeighting, UPGradWeighting

from taskrobust import Gramian, MultiTaskLoss, SoftmaxMinimax, Uniform, Weighting

SCALES = {"small": 1.0, "middle": 1.2, "large": 1.4}


def train(weighting: Weighting) -> dict[str, float]:
    torch.manual_seed(0)
    trunk = nn.Linear(3, 2)
    heads = nn.ModuleDict({task: nn.Linear(2, 1) for task in SCALES})
    criterion = MultiTaskLoss(list(SCALES), weighting)
    optimizer = torch.optim.AdamW([*trunk.parameters(), *heads.parameters()], lr=1e-2)
    for _ in range(1000):
        x = torch.randn(256, 3)
        hidden = trunk(x)
        losses = {
            task: nn.functional.mse_loss(heads[task](hidden)[:, 0], scale * x[:, column])
            for column, (task, scale) in enumerate(SCALES.items())
        }
        optimizer.zero_grad()
        criterion(losses, shared=list(trunk.parameters())).backward()
        optimizer.step()
    return {task: risk.item() for task, risk in criterion.risks.items()}


def main() -> None:
    weightings = {
        "average": Uniform(),
        "minimax": SoftmaxMinimax(),
        "UPGrad": Gramian(UPGradWeighting()),
        "MGDA, every 10 steps": Gramian(MGDAWeighting(), every=10),
    }
    for name, weighting in weightings.items():
        risks = train(weighting)
        values = ", ".join(f"{task} {risk:.2f}" for task, risk in risks.items())
        print(f"{name}: {values}; worst {max(risks.values()):.2f}")


if __name__ == "__main__":
    main()
