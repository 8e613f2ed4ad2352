import pytest
import torch
from torch import Tensor, nn

from taskrobust import DisjointRows
from taskrobust.ranks import Ranks
from taskrobust.weighting._gramian import GramianEstimator

TASKS = 3


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)))


def owned_risks(activation: Tensor, owner: Tensor) -> Tensor:
    """Each row is only read by its owner."""
    errors = activation.tanh().sum(1).square()
    return torch.where(owner == torch.arange(TASKS)[:, None], errors, 0).sum(1)


def gramian_by_backward_passes(risks: Tensor, tensors: list[Tensor]) -> Tensor:
    rows = []
    for risk in risks:
        for tensor in tensors:
            tensor.grad = None
        risk.backward(retain_graph=True, inputs=tensors)
        rows.append(torch.cat([tensor.grad.flatten() for tensor in tensors]))  # type: ignore[union-attr]
    return torch.stack(rows) @ torch.stack(rows).T


def estimate(risks: Tensor, shared: object) -> Tensor:
    estimator = GramianEstimator(TASKS, Ranks())
    estimator.add(risks, shared)  # type: ignore[arg-type]
    return estimator.gramian()


def test_gramian_on_parameters_agrees_with_backward_passes(inputs: Tensor, weight: nn.Parameter) -> None:
    bias = nn.Parameter(torch.zeros(5))
    risks = (inputs @ weight + bias).tanh().square().sum(0)[:TASKS]

    gramian = estimate(risks, [weight, bias])

    torch.testing.assert_close(gramian, gramian_by_backward_passes(risks, [weight, bias]))
    torch.testing.assert_close(estimate(risks, weight), gramian_by_backward_passes(risks, [weight]))


def test_gramian_on_an_activation_agrees_with_backward_passes(inputs: Tensor, weight: nn.Parameter) -> None:
    activation = inputs @ weight
    activation.retain_grad()
    risks = activation.tanh().square().sum(0)[:TASKS] + activation[0].sum()

    torch.testing.assert_close(estimate(risks, activation), gramian_by_backward_passes(risks, [activation]))


def test_gramian_on_disjoint_rows_agrees_with_a_backward_pass_per_task(inputs: Tensor, weight: nn.Parameter) -> None:
    owner = torch.tensor([0, 2, 1, 0, 0, 2, 3, 3, 2, 1])  # rows of the fourth owner belong to no task
    activation = inputs @ weight
    activation.retain_grad()
    risks = owned_risks(activation, owner)

    gramian = estimate(risks, DisjointRows(activation, owner))

    torch.testing.assert_close(gramian, gramian_by_backward_passes(risks, [activation]))
    assert torch.count_nonzero(gramian) == TASKS


def test_disjoint_rows_can_have_any_rank(inputs: Tensor) -> None:
    owner = torch.tensor([0, 2, 1, 0, 0, 2, 0, 0, 2, 1])
    activation = inputs.reshape(10, 2, 2).clone().requires_grad_()

    gramian = estimate(owned_risks(activation.flatten(1), owner), DisjointRows(activation, owner))

    flat = inputs.clone().requires_grad_()
    torch.testing.assert_close(gramian, gramian_by_backward_passes(owned_risks(flat, owner), [flat]))


def test_task_independent_of_the_shared_tensors_has_zero_gradient(weight: nn.Parameter) -> None:
    elsewhere = torch.ones((), requires_grad=True)
    risks = torch.stack([weight.sum(), elsewhere * 2, (weight * 3).sum()])

    gramian = estimate(risks, weight)

    torch.testing.assert_close(gramian, torch.tensor([[20.0, 0, 60], [0, 0, 0], [60, 0, 180]]))


def test_half_precision_gradients_are_multiplied_in_float32() -> None:
    activation = torch.full((300,), 1.0, dtype=torch.float16, requires_grad=True)
    risks = (activation * 16).sum(dtype=torch.float32).expand(TASKS) * 1

    assert estimate(risks, activation)[0, 0] == 300 * 16**2  # exceeds the range of float16
