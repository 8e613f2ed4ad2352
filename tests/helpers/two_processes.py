"""Runs on every rank: each scenario trains on this rank's rows, and beside it one process's model on all rows.

    torchrun --nproc-per-node 2 two_processes.py RESULTS.json

The results name each scenario with None or what went wrong.
"""

import copy
import json
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torchjd.aggregation import PCGradWeighting

from taskrobust import (
    DisjointRows,
    FixedReference,
    ModelReference,
    MultiTaskLoss,
    NonFiniteLossError,
    PowerLawReference,
    Reference,
    RiskEstimator,
    TaskLosses,
    Weighting,
    evaluate,
    pool_batches,
)
from taskrobust.weighting import strategies

TASKS = ("noun", "verb", "adjective")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Fixed": {"values": (0.5, 0.3, 0.2)},
    "DWA": {"period": 2},
    "Gramian": {"inner": PCGradWeighting()},
}
# Rows of each task on each rank. The verb is absent on one rank in the first step, everywhere in the second.
ROWS = [([7, 3, 1], [2, 0, 6]), ([4, 0, 5], [3, 0, 2]), ([1, 9, 0], [5, 1, 0]), ([2, 2, 2], [0, 0, 8])]
UNEVEN = ("SoftmaxMinimax", "Uncertainty", "GradNorm")  # strategies of windows of different lengths
SHARED_FORMS = ("parameters", "activation", "disjoint_rows")
REFERENCES: dict[str, Callable[[], Reference]] = {
    "fixed": lambda: FixedReference([0.1, 0.2, 0.3]),
    "model": ModelReference,
    "power law": PowerLawReference,
}


def close_to(tolerance: float) -> Callable[..., None]:
    """An assertion that tensors are close."""
    return partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)


close = close_to(1e-6)

Rows = tuple[Tensor, Tensor]


class Model(nn.Module):
    """Three regressions on one trunk. Every head runs on every rank."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Linear(4, 6)
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in TASKS)
        self.hidden = torch.empty(0)

    def forward(self, inputs: Tensor, owner: Tensor) -> TaskLosses:
        self.hidden = self.trunk(inputs).tanh()
        errors = torch.cat([head(self.hidden) for head in self.heads], 1) - inputs.sum(1, keepdim=True)
        owned = owner[:, None] == torch.arange(len(TASKS))
        return TaskLosses(torch.where(owned, errors.square(), 0).sum(0), owned.sum(0))


def batch(step: int, ranks: list[int]) -> Rows:
    """The rows of some ranks."""
    inputs, owners = [], []
    for rank in ranks:
        owner = torch.arange(len(TASKS)).repeat_interleave(torch.tensor(ROWS[step % len(ROWS)][rank]))
        owners.append(owner)
        inputs.append(torch.randn(len(owner), 4, generator=torch.Generator().manual_seed(10 * step + rank)) + rank)
    return torch.cat(inputs), torch.cat(owners)


class Trainee:
    """A model with its criterion and optimizer."""

    def __init__(self, model: Model, criterion: MultiTaskLoss, wrapped: nn.Module, form: str) -> None:
        self.model = model
        self.criterion = criterion
        self.wrapped = wrapped
        self.form = form
        self.frozen = Model(seed=1).requires_grad_(False)
        self.optimizer = torch.optim.SGD([*wrapped.parameters(), *criterion.parameters()], lr=0.05)

    def backward(self, rows: Rows) -> None:
        """Forward and backward on one batch."""
        losses = self.wrapped(*rows)
        forms = {
            "parameters": [self.model.trunk.weight, self.model.trunk.bias],
            "activation": self.model.hidden,
            "disjoint_rows": DisjointRows(self.model.hidden, rows[1]),
        }
        self.criterion(losses, shared=forms[self.form], reference=self.reference(rows)).backward()

    def reference(self, rows: Rows) -> TaskLosses | None:
        """Losses of the reference model, if the criterion needs them."""
        return self.frozen(*rows) if self.criterion.risk.needs_reference_model else None

    def losses(self, rows: Rows) -> TaskLosses:
        """Losses of a first pass, without gradient."""
        with torch.no_grad():
            losses, reference = self.model(*rows), self.reference(rows)
        return losses if reference is None else losses.with_reference(reference)

    def gradients(self) -> list[Tensor]:
        """Gradients of the model and of the strategy's own parameters, whole."""
        parameters = [*self.wrapped.parameters(), *self.criterion.parameters()]
        gradients = [parameter.grad for parameter in parameters]
        assert all(gradient is not None for gradient in gradients)
        return [gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient for gradient in gradients]


def pair(
    name: str, wrap: Callable[[Model], nn.Module], form: str, reference: str | None = None
) -> tuple[Trainee, Trainee]:
    """This rank's trainee, and one that sees all rows by itself."""

    def criterion(group: dist.ProcessGroup | None) -> MultiTaskLoss:
        weighting = strategies()[name](**ARGUMENTS.get(name, {}))
        excess_from = None if reference is None else REFERENCES[reference]()
        risk = RiskEstimator(smoothing=0.5, normalization="initial", reference=excess_from)
        return MultiTaskLoss(TASKS, weighting, risk=risk, process_group=group)

    model = Model()
    alone = copy.deepcopy(model)
    return Trainee(model, criterion(None), wrap(model), form), Trainee(alone, criterion(ALONE), alone, form)


def assert_same_step(shared: Trainee, alone: Trainee) -> None:
    """Gradients are those of one process, weights and the strategies' parameters bit-identical on all ranks."""
    # A strategy that divides by excess risks near 0 multiplies the differences in rounding.
    close = close_to(1e-6 if shared.criterion.risk.reference is None else 1e-5)
    for gradient, expected in zip(shared.gradients(), alone.gradients(), strict=True):
        close(gradient, expected)
    close(shared.criterion.last.weight_vector, alone.criterion.last.weight_vector)
    close(shared.criterion.last.risk_vector, alone.criterion.last.risk_vector, equal_nan=True)
    for value in (shared.criterion.last.weight_vector, *shared.criterion.state_dict().values()):
        on_ranks = [torch.empty_like(value) for _ in range(dist.get_world_size())]
        dist.all_gather(on_ranks, value.detach())
        assert all(torch.equal(other, value) for other in on_ranks)
    for trainee in (shared, alone):
        trainee.optimizer.step()
        trainee.optimizer.zero_grad()
    for value, expected in zip(shared.criterion.parameters(), alone.criterion.parameters(), strict=True):
        close(value, expected)


def train(
    name: str, wrap: Callable[[Model], nn.Module], form: str, reference: str | None = None, steps: int = 6
) -> None:
    """Several steps of a batch each."""
    shared, alone = pair(name, wrap, form, reference)
    for step in range(steps):
        shared.backward(batch(step, [dist.get_rank()]))
        alone.backward(batch(step, [0, 1]))
        assert_same_step(shared, alone)


def train_on_windows(name: str, form: str, two_passes: bool, reference: str | None = None) -> None:
    """Several steps of three micro-batches each, beside the same steps in one batch."""
    shared, alone = pair(name, DistributedDataParallel, form, reference)
    for step in range(3):
        micro_batches = range(3 * step, 3 * step + 3)
        own = [batch(number, [dist.get_rank()]) for number in micro_batches]
        union = [torch.cat(parts) for parts in zip(*(batch(n, [0, 1]) for n in micro_batches), strict=True)]
        losses, union_losses = pool_batches(map(shared.losses, own)), alone.losses(tuple(union))
        with shared.criterion.accumulate(**({"losses": losses} if two_passes else {"counts": losses.counts})):
            for index, rows in enumerate(own):
                with shared.wrapped.no_sync() if index < 2 else nullcontext():  # type: ignore[operator]
                    shared.backward(rows)
        if two_passes and not alone.criterion.weighting.needs_conflicts:
            alone.backward(tuple(union))
        else:  # the weights of these strategies lag by one step in a window
            with alone.criterion.accumulate(
                **({"losses": union_losses} if two_passes else {"counts": union_losses.counts})
            ):
                alone.backward(tuple(union))
        assert_same_step(shared, alone)


def shard(model: Model) -> nn.Module:
    """FSDP2 on the trunk and on the whole."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model.trunk, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def means_by_rank_would_differ() -> None:
    """The rows are uneven enough to tell the global mean from the mean of the ranks' means."""
    shared, alone = pair("SoftmaxMinimax", DistributedDataParallel, "activation")
    per_rank = MultiTaskLoss(TASKS, process_group=ALONE)
    per_rank(shared.wrapped(*batch(0, [dist.get_rank()]))).backward()
    alone.backward(batch(0, [0, 1]))
    assert not torch.allclose(shared.gradients()[0], alone.gradients()[0], rtol=0.05, atol=0.01)


def a_loss_that_is_not_finite_on_one_rank() -> None:
    """All ranks raise together, or none would wait for the other."""
    criterion = MultiTaskLoss(TASKS)
    message = ""
    try:
        criterion(TaskLosses(torch.tensor([1.0, torch.nan if dist.get_rank() else 1.0, 1.0]), torch.ones(3)))
    except NonFiniteLossError as error:
        message = str(error)
    assert "['verb']" in message


def evaluation_is_local() -> None:
    """One rank evaluates, or both do on different numbers of batches, and training goes on as without it."""
    trainees = [pair("GroupDRO", DistributedDataParallel, "parameters")[0] for _ in range(2)]
    for step in range(3):
        for watched, trainee in enumerate(trainees):
            trainee.backward(batch(step, [dist.get_rank()]))
            trainee.optimizer.step()
            trainee.optimizer.zero_grad()
            if not watched:
                continue
            trainee.criterion.eval()
            for number in range(2 - dist.get_rank()):
                with torch.no_grad():
                    trainee.criterion(trainee.model(*batch(number, [0])))
            trainee.criterion.train()
            if dist.get_rank() == 0:
                evaluate(trainee.model, trainee.criterion, [batch(7, [0])], pool=False)
    for value, expected in zip(*(t.criterion.state_dict().values() for t in trainees), strict=True):
        assert torch.equal(value, expected)
    for value, expected in zip(*(t.model.parameters() for t in trainees), strict=True):
        assert torch.equal(value, expected)


def evaluation_of_uneven_ranks_is_that_of_the_union() -> None:
    """The ranks have two batches and one."""
    criterion, alone = (MultiTaskLoss(TASKS, process_group=group) for group in (None, ALONE))
    model = Model()
    batches = [batch(step, [step % 2]) for step in range(3)]
    found = evaluate(model, criterion, batches[dist.get_rank() :: 2])
    expected = evaluate(model, alone, batches)
    assert found.risks.keys() == expected.risks.keys()
    for task, risk in found.risks.items():
        assert abs(risk - expected.risks[task]) <= 1e-6 * risk
    assert found.worst_task == expected.worst_task


def windows_of_unequal_length(name: str, two_passes: bool) -> None:
    """One rank has three micro-batches, the other two."""
    shared, alone = pair(name, DistributedDataParallel, "activation")
    lengths = (3, 2)
    for step in range(4):
        own = [batch(10 * step + n, [dist.get_rank()]) for n in range(lengths[dist.get_rank()])]
        every = [batch(10 * step + n, [rank]) for rank in (0, 1) for n in range(lengths[rank])]
        union = [torch.cat(parts) for parts in zip(*every, strict=True)]
        with torch.no_grad():
            losses = pool_batches(shared.model(*rows) for rows in own)
            union_losses = alone.model(*union)
        with shared.criterion.accumulate(**({"losses": losses} if two_passes else {"counts": losses.counts})):
            for index, rows in enumerate(own):
                with shared.wrapped.no_sync() if index < len(own) - 1 else nullcontext():  # type: ignore[operator]
                    shared.backward(rows)
        with alone.criterion.accumulate(
            **({"losses": union_losses} if two_passes else {"counts": union_losses.counts})
        ):
            alone.backward(tuple(union))
        assert_same_step(shared, alone)
        close(shared.criterion.last.total, alone.criterion.last.total)


def a_window_that_is_not_finite_on_one_rank() -> None:
    """All ranks raise when it closes, or skip it."""
    for on_nonfinite in ("raise", "skip"):
        criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(smoothing=0.5), on_nonfinite=on_nonfinite)
        criterion(TaskLosses(torch.ones(3), torch.ones(3)))
        before = {name: value.clone() for name, value in criterion.risk.state_dict().items()}
        raised = False
        try:
            with criterion.accumulate(counts=torch.ones(3) * 2):
                for number in range(2):
                    bad = torch.nan if dist.get_rank() and number else 1.0
                    criterion(TaskLosses(torch.tensor([1.0, bad, 1.0]), torch.ones(3)))
        except NonFiniteLossError:
            raised = True
        assert raised == (on_nonfinite == "raise")
        assert raised or not criterion.last.finite
        assert all(torch.equal(value, before[name]) for name, value in criterion.risk.state_dict().items())


def names_in_another_order() -> None:
    """As a set's order is on every rank."""
    criterion = MultiTaskLoss(TASKS if dist.get_rank() else TASKS[::-1])
    message = ""
    try:
        criterion(TaskLosses(torch.ones(3), torch.ones(3)))
    except ValueError as error:
        message = str(error)
    assert message.startswith("Expected the same tasks in the same order on all ranks, got [")


def copies_with_a_process_group() -> None:
    """Copies share the group, pickles drop it, and an average of a model that holds the criterion can be made."""
    criterion = MultiTaskLoss(TASKS, process_group=ALONE)
    assert copy.deepcopy(criterion).ranks.group is ALONE
    assert pickle.loads(pickle.dumps(criterion)).ranks.group is None
    averaged = AveragedModel(nn.ModuleDict({"criterion": criterion}))
    assert averaged.module["criterion"].ranks.size == 1


def forms_of(strategy: type[Weighting]) -> tuple[str, ...]:
    """The forms of shared tensors that a strategy uses; for one that uses none, any."""
    if strategy.needs_conflicts:
        return SHARED_FORMS[:2]
    return SHARED_FORMS if strategy.needs_gramian else SHARED_FORMS[:1]


def scenarios() -> dict[str, Callable[[], None]]:
    """What is tried, by the name under which its result is reported."""
    scenarios: dict[str, Callable[[], None]] = {
        "means by rank": means_by_rank_would_differ,
        "non-finite on one rank": a_loss_that_is_not_finite_on_one_rank,
    }
    scenarios |= {
        "evaluation is local": evaluation_is_local,
        "evaluation of uneven ranks": evaluation_of_uneven_ranks_is_that_of_the_union,
        "window that is not finite on one rank": a_window_that_is_not_finite_on_one_rank,
        "names in another order": names_in_another_order,
        "copies with a process group": copies_with_a_process_group,
    }
    for name in UNEVEN:
        for two_passes in (False, True):
            scenarios[f"uneven windows {two_passes} {name}"] = partial(windows_of_unequal_length, name, two_passes)
    for name, strategy in strategies().items():
        for form in forms_of(strategy):
            scenarios[f"ddp {name} {form}"] = partial(train, name, DistributedDataParallel, form)
            for two_passes in (False, True):
                passes = "losses" if two_passes else "counts"
                scenarios[f"window of {passes} {name} {form}"] = partial(train_on_windows, name, form, two_passes)
    for name in strategies():
        for reference in REFERENCES:
            scenarios[f"ddp {name} {reference}"] = partial(
                train, name, DistributedDataParallel, "parameters", reference, 15
            )
            for two_passes in (False, True):
                passes = "losses" if two_passes else "counts"
                scenarios[f"window of {passes} {name} {reference}"] = partial(
                    train_on_windows, name, "parameters", two_passes, reference
                )
    for name in ("SoftmaxMinimax", "Uncertainty", "GradNorm"):
        scenarios[f"fsdp {name}"] = partial(train, name, shard, "activation")
    return scenarios


if __name__ == "__main__":
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    ALONE = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
    results: dict[str, str | None] = {}
    for scenario, run in scenarios().items():
        failure = ""
        try:
            run()
        except AssertionError as error:
            failure = f"rank {dist.get_rank()}: {error!r}"
        failures: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(failures, failure)
        results[scenario] = "\n".join(filter(None, failures)) or None
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
    dist.barrier()
    os._exit(0)  # gloo's threads may let go of tensors while Python ends, which aborts the process
