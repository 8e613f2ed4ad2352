import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchjd import aggregation

from taskrobust import DisjointRows, Gramian, MultiTaskLoss, TaskLosses

TASKS = ("a", "b", "c", "d")
ARGUMENTS = {"CAGrad": {"c": 0.5}, "FairGrad": {"alpha": 1.0}, "Krum": {"n_byzantine": 1, "n_selected": 1}}
PAIRS = ["UPGrad", "MGDA", "PCGrad", "CAGrad", "AlignedMTL", "IMTLG", "DualProj", "FairGrad", "GradVac", "PCD", "Krum"]
STATEFUL: dict[str, Callable[[], Any]] = {
    "GradVac": aggregation.GradVacWeighting,
    "PCD": aggregation.PCDWeighting,
    "CR-MOGM": lambda: aggregation.CRMOGMWeighting(aggregation.UPGradWeighting()),
}


def made(name: str, **arguments: Any) -> Any:
    """A weighting or an aggregator, some of which need more packages."""
    try:
        return getattr(aggregation, name)(**arguments)
    except ImportError as error:
        pytest.skip(str(error))


def risks_of(weight: Tensor, step: int, present: list[int] | None = None) -> TaskLosses:
    """Conflicting regressions on one matrix."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(len(TASKS), 6, 5, generator=generator)
    targets = torch.randn(len(TASKS), 6, generator=generator)
    errors = ((inputs @ weight).tanh().sum(-1) - targets).square().sum(1)
    here = torch.tensor([float(present is None or task in present) for task in range(len(TASKS))])
    return TaskLosses(errors * here, 6 * here)


def jacobian(weight: Tensor, losses: TaskLosses) -> Tensor:
    rows = [torch.autograd.grad(risk, weight, retain_graph=True)[0] for risk in losses.sums / losses.counts]
    return torch.stack(rows).flatten(1)


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", PAIRS)
def test_the_gradient_is_that_of_torchjd(name: str, weight: nn.Parameter) -> None:
    inner, aggregator = (made(name + end, **ARGUMENTS.get(name, {})) for end in ("Weighting", ""))
    criterion = MultiTaskLoss(TASKS, Gramian(inner), weight_sum="paper")
    for step in range(3):
        losses = risks_of(weight, step)
        with torch.random.fork_rng([]):
            torch.manual_seed(step)  # of random orders
            expected = aggregator(jacobian(weight, losses)).view_as(weight)
        (gradient,) = torch.autograd.grad(criterion(losses, shared=[weight]), weight)
        difference = torch.linalg.vector_norm(gradient - expected)
        assert difference <= 1e-6 * torch.linalg.vector_norm(expected)


def test_an_absent_task_is_left_out_of_the_matrix(weight: nn.Parameter) -> None:
    whole = torch.zeros(4, 4)
    whole[:3, :3] = torch.eye(3)
    assert aggregation.MGDAWeighting()(whole)[3] > 0.9  # what a row of zeros does
    criterion = MultiTaskLoss(TASKS, Gramian(aggregation.MGDAWeighting()))

    losses = risks_of(weight, 0, present=[0, 2, 3])
    criterion(losses, shared=[weight])

    own = TaskLosses(losses.sums[[0, 2, 3]], losses.counts[[0, 2, 3]])
    rows = jacobian(weight, own)
    expected = aggregation.MGDAWeighting()(rows @ rows.T)
    assert criterion.last.weight_vector[1] == 0
    torch.testing.assert_close(criterion.last.weight_vector[[0, 2, 3]], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_stateful_weighting_resumes_exactly(name: str, weight: nn.Parameter) -> None:
    straight, resumed = (MultiTaskLoss(TASKS, Gramian(STATEFUL[name]())) for _ in range(2))

    def weights(criterion: MultiTaskLoss, steps: range) -> Tensor:
        rows = []
        for step in steps:
            criterion(risks_of(weight, step), shared=[weight])
            rows.append(criterion.last.weight_vector)
        return torch.stack(rows)

    weights(straight, range(4))
    resumed.load_state_dict(straight.state_dict())
    copied = copy.deepcopy(straight)
    expected = weights(straight, range(4, 8))

    assert torch.equal(weights(resumed, range(4, 8)), expected)
    assert torch.equal(weights(copied, range(4, 8)), expected)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_stateful_weighting_starts_as_torchjd_does_and_keeps_its_weights_while_a_task_is_absent(
    name: str, weight: nn.Parameter
) -> None:
    criterion = MultiTaskLoss(TASKS, Gramian(STATEFUL[name]()), weight_sum="paper")
    theirs = STATEFUL[name]()
    for step in (0, 1, 3):
        losses = risks_of(weight, step)
        criterion(losses, shared=[weight])
        rows = jacobian(weight, losses)
        with torch.random.fork_rng([]):
            torch.manual_seed(step)
            expected = theirs(rows @ rows.T)
        torch.testing.assert_close(criterion.last.weight_vector, expected, rtol=1e-4, atol=1e-5)
        if step == 1:
            criterion(risks_of(weight, 2, present=[0, 1, 3]), shared=[weight])
            before = expected.clone()
            before[2] = 0
            torch.testing.assert_close(criterion.last.weight_vector, before, rtol=1e-4, atol=1e-5)


def test_random_orders_depend_on_the_step_alone(weight: nn.Parameter) -> None:
    criteria = [MultiTaskLoss(TASKS, Gramian(aggregation.PCGradWeighting())) for _ in range(2)]
    for step in range(4):
        losses = risks_of(weight, step)
        for seed, criterion in enumerate(criteria):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            criterion(losses, shared=[weight])
            assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(criteria[0].last.weight_vector, criteria[1].last.weight_vector)


class Opposed(nn.Module):
    """Negative weights."""

    def forward(self, gramian: Tensor) -> Tensor:
        return torch.tensor([3.0, -1.0])


def test_negative_weights_keep_their_direction_and_are_scaled_by_their_absolute_values() -> None:
    shared = torch.ones(2, requires_grad=True)
    losses = TaskLosses(shared * torch.tensor([1.0, 2.0]), torch.ones(2))
    criterion = MultiTaskLoss(["a", "b"], Gramian(Opposed()))

    criterion(losses, shared=shared)

    assert criterion.last.weight_vector.tolist() == [0.75, -0.25]
    with pytest.raises(ValueError, match=r"^Expected min_weight=0 with Gramian, which may return"):
        MultiTaskLoss(["a", "b"], Gramian(Opposed()), min_weight=0.1)


def test_disjoint_rows_are_an_error() -> None:
    hidden = torch.randn(4, 3, requires_grad=True)
    owner = torch.tensor([0, 0, 1, 1])
    criterion = MultiTaskLoss(["a", "b"], Gramian(aggregation.UPGradWeighting()))
    losses = TaskLosses(torch.stack([hidden[:2].sum(), hidden[2:].sum()]), torch.tensor([2, 2]))
    with pytest.raises(ValueError, match=r"^Gramian needs conflicts between tasks, which DisjointRows cannot show"):
        criterion(losses, shared=DisjointRows(hidden, owner))


def test_weights_are_kept_between_calls(weight: nn.Parameter) -> None:
    criterion = MultiTaskLoss(TASKS, Gramian(aggregation.MGDAWeighting(), every=3))
    weights = []
    for step in range(7):
        assert criterion.weighting.needs_gramian == (step % 3 == 0)
        losses = risks_of(weight, step)
        criterion(losses, shared=[weight]) if step % 3 == 0 else criterion(losses)
        weights.append(criterion.last.weight_vector)

    changes = [not torch.equal(weights[step], weights[step - 1]) for step in range(1, 7)]
    assert changes == [False, False, True, False, False, True]


def test_a_skipped_step_leaves_the_state(weight: nn.Parameter) -> None:
    criterion = MultiTaskLoss(TASKS, Gramian(STATEFUL["CR-MOGM"]()), on_nonfinite="skip")
    criterion(risks_of(weight, 0), shared=[weight])
    before = {name: value.clone() for name, value in criterion.weighting.state_dict().items()}
    losses = risks_of(weight, 1)

    criterion(TaskLosses(losses.sums * torch.tensor([1.0, torch.nan, 1.0, 1.0]), losses.counts), shared=[weight])

    assert not criterion.last.finite
    for name, value in criterion.weighting.state_dict().items():
        assert torch.equal(value, before[name])


def test_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^Expected every >= 1, got 0\.$"):
        Gramian(aggregation.UPGradWeighting(), every=0)
