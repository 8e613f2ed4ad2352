"""Weights by excess risk: a noisy task keeps a large risk whatever its weight, a hard one can be learned.

Three tasks share a trunk with room for two. The noisy one has a risk of at least 1. Raw minimax gives it most of the
weight, and the others pay. With a reference, weights follow what is left to learn. The reference can be numbers, the
limits of the learning curves, which are found too late in a run as short as this, or a frozen model.
"""

import torch
from torch import Tensor, nn

from taskrobust import FixedReference, ModelReference, MultiTaskLoss, PowerLawReference, RiskEstimator, SoftmaxMinimax

NOISE = {"easy": 0.0, "hard": 0.0, "noisy": 1.0}
SCALES = {"easy": 1.0, "hard": 1.4, "noisy": 1.0}


class Model(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, width)
        self.heads = nn.ModuleDict({task: nn.Linear(width, 1) for task in NOISE})

    def forward(self, x: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = self.trunk(x)
        return {task: nn.functional.mse_loss(head(hidden)[:, 0], targets[task]) for task, head in self.heads.items()}


def train(model: Model, risk: RiskEstimator, frozen: Model | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """The weights at the end, and the risks minus the noise."""
    generator = torch.Generator().manual_seed(0)
    criterion = MultiTaskLoss(list(NOISE), SoftmaxMinimax(), risk=risk)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(1000):
        x = torch.randn(256, 3, generator=generator)
        targets = {
            task: SCALES[task] * x[:, column] + noise * torch.randn(256, generator=generator)
            for column, (task, noise) in enumerate(NOISE.items())
        }
        reference = None
        if frozen is not None:
            with torch.no_grad():
                reference = frozen(x, targets)
        optimizer.zero_grad()
        criterion(model(x, targets), reference=reference).backward()
        optimizer.step()
    running = criterion.risk.sums / criterion.risk.counts
    excess = {task: mean - NOISE[task] ** 2 for task, mean in zip(NOISE, running.tolist(), strict=True)}
    return {task: weight.item() for task, weight in criterion.weights.items()}, excess


def main() -> None:
    torch.manual_seed(0)
    large = Model(width=3)  # has room for all tasks
    train(large, RiskEstimator())
    references = {
        "none": None,
        "numbers": FixedReference({task: noise**2 for task, noise in NOISE.items()}),
        "learning curves": PowerLawReference(),
        "a larger model": ModelReference(),
    }
    for name, reference in references.items():
        torch.manual_seed(1)
        risk = RiskEstimator(smoothing=0.95, reference=reference)
        weights, excess = train(Model(width=2), risk, large if name == "a larger model" else None)
        values = ", ".join(f"{task} {weights[task]:.2f} / {excess[task]:.2f}" for task in NOISE)
        print(f"reference {name}: weight / excess {values}; worst excess {max(excess.values()):.2f}")


if __name__ == "__main__":
    main()
