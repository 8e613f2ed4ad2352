import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from taskrobust import GradNorm, MultiTaskLoss, TaskLosses

TASKS = ["a", "b", "c"]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = nn.Parameter(torch.randn(4, 5, generator=generator))
        self.heads = nn.Parameter(torch.randn(5, 3, generator=generator) * torch.tensor([1.0, 3.0, 0.2]))

    def forward(self, inputs: Tensor) -> Tensor:
        return ((inputs @ self.trunk).tanh() @ self.heads - inputs[:, :1]).square().mean(0)


def gradient_by_double_backward(model: Model, risks: Tensor, weights: Tensor, initial: Tensor, alpha: float) -> Tensor:
    """Gradient of the paper's objective with respect to the weights, as in Algorithm 1."""
    weights = weights.clone().requires_grad_()
    norms = torch.stack(
        [
            torch.autograd.grad(weight * risk, model.trunk, create_graph=True)[0].norm()
            for weight, risk in zip(weights, risks, strict=True)
        ]
    )
    ratios = risks.detach() / initial
    targets = (norms.mean() * (ratios / ratios.mean()) ** alpha).detach()
    return torch.autograd.grad((norms - targets).abs().sum(), weights, retain_graph=True)[0]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_weights_agree_with_algorithm_1_by_double_backward(alpha: float) -> None:
    model = Model()
    criterion = MultiTaskLoss(TASKS, GradNorm(alpha=alpha, lr=0.1), weight_sum="tasks")
    weights = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weights], lr=0.1)
    model_optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    initial = None
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        risks = model(torch.randn(16, 4, generator=generator))
        initial = risks.detach() if initial is None else initial

        total = criterion(TaskLosses(risks, torch.ones(3)), shared=[model.trunk])

        torch.testing.assert_close(criterion.last.weight_vector, weights.detach())
        weights.grad = gradient_by_double_backward(model, risks, weights.detach(), initial, alpha)
        optimizer.step()
        with torch.no_grad():
            weights.mul_(3 / weights.sum())
        model_optimizer.zero_grad()
        total.backward()
        model_optimizer.step()
    assert weights.detach().std() > 0.05


def test_first_step_agrees_with_manual_computation() -> None:
    weighting = GradNorm(alpha=1.0, lr=0.1).setup("ab")
    weighting.observe(torch.tensor([[4.0, 1.0], [1.0, 1.0]]))
    weighting.update(torch.tensor([5.0, 7.0]), torch.ones(2))

    # Norms 2 and 1, rates 1 and 1, targets 1.5: Adam's first step is lr, down for the first task and up for the second.
    np.testing.assert_allclose(weighting.task_weights.numpy(), np.array([0.9, 1.1]), rtol=1e-6)


def test_slowly_training_tasks_gain_weight_at_equal_norms() -> None:
    weighting = GradNorm(initial_risks=[2.0, 2.0]).setup("ab")
    for _ in range(5):
        weighting.observe(torch.eye(2))
        weighting.update(torch.tensor([2.0, 0.5]), torch.ones(2))

    assert weighting.task_weights[0] > 1 > weighting.task_weights[1]


def test_initial_risks_are_the_mean_of_the_first_batches_with_the_task() -> None:
    weighting = GradNorm(initial_steps=2).setup("ab")
    weighting.observe(torch.eye(2))
    for risks, counts in (([4.0, 9.0], [1.0, 0.0]), ([2.0, 6.0], [1.0, 1.0]), ([1.0, 8.0], [1.0, 1.0])):
        weighting.update(torch.tensor(risks), torch.tensor(counts))

    assert (weighting.initial_sums / weighting.initial_batches).tolist() == [3, 7]


def test_weights_stay_positive_where_those_of_the_paper_cross_zero() -> None:
    weighting = GradNorm(lr=0.5).setup("ab")
    for _ in range(50):
        weighting.observe(torch.diag(torch.tensor([100.0, 1e-4])))
        weighting.update(torch.tensor([1.0, 1.0]), torch.ones(2))
        assert torch.all(weighting.task_weights > 0)
        assert weighting.task_weights.sum().item() == pytest.approx(2)


@pytest.mark.parametrize(
    ("initial_risks", "message"),
    [
        ([1.0], "Expected one value per task of ['a', 'b'] in GradNorm(initial_risks=...), got [1.0]."),
        ([1.0, 0.0], "Expected positive initial risks, got [1.0, 0.0]."),
    ],
)
def test_invalid_initial_risks_raise(initial_risks: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GradNorm(initial_risks=initial_risks).setup("ab")


def test_known_initial_risks_are_not_learned() -> None:
    weighting = GradNorm(initial_risks=[math.log(10), math.log(2)], initial_steps=3).setup("ab")
    weighting.observe(torch.eye(2))
    weighting.update(torch.tensor([5.0, 5.0]), torch.ones(2))

    initial = weighting.initial_sums / weighting.initial_batches
    torch.testing.assert_close(initial, torch.tensor([math.log(10), math.log(2)]))
