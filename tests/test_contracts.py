"""What every strategy keeps to, run over all of them: a new strategy needs no line here unless it has arguments."""

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from taskrobust import MultiTaskLoss, RiskEstimator, TaskLosses, Weighting
from taskrobust.weighting import strategies

TASKS = ("noun", "verb", "adjective")
ARGUMENTS: dict[str, dict[str, Any]] = {"Fixed": {"values": (0.5, 0.3, 0.2)}, "DWA": {"period": 4}}
EVERY = pytest.mark.parametrize("name", strategies())

State = dict[str, Tensor]


def strategy(name: str, **changes: Any) -> Weighting:
    return strategies()[name](len(TASKS), **(ARGUMENTS.get(name, {}) | changes))


def smoothed_criterion(name: str, **options: Any) -> MultiTaskLoss:
    risk = RiskEstimator(len(TASKS), smoothing=0.9, normalization="initial", reference_steps=3)
    return MultiTaskLoss(TASKS, strategy(name), risk=risk, **options)


class Tagger(nn.Module):
    """Three regressions on one trunk, each row of a batch owned by one of them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = nn.Parameter(torch.randn(4, 5, generator=generator))
        self.heads = nn.Parameter(torch.randn(5, len(TASKS), generator=generator))

    def forward(self, inputs: Tensor, owner: Tensor) -> TaskLosses:
        predictions = (inputs @ self.trunk).tanh() @ self.heads
        errors = (predictions.gather(1, owner[:, None])[:, 0] - inputs.sum(1)).square()
        owned = owner == torch.arange(len(TASKS))[:, None]
        return TaskLosses(torch.where(owned, errors, 0).sum(1), owned.sum(1))


def batch(step: int, absent: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    owner = torch.tensor([0] * 7 + [1] * 3 + [2] * 5)
    owner = owner[owner != absent] if absent is not None else owner
    return torch.randn(len(owner), 4, generator=generator), owner


class Run:
    """A training run."""

    def __init__(self, criterion: MultiTaskLoss, scale: float = 1.0) -> None:
        self.model = Tagger()
        self.criterion = criterion
        self.optimizer = torch.optim.SGD([*self.model.parameters(), *criterion.parameters()], lr=0.05)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def step(self, number: int, absent: int | None = None) -> Tensor:
        """The weights of a step."""
        self.optimizer.zero_grad()
        total = self.criterion(self.model(*batch(number, absent)), shared=[self.model.trunk])
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.criterion.weight_vector.clone()

    def steps(self, numbers: range) -> Tensor:
        return torch.stack([self.step(number) for number in numbers])

    def save(self) -> bytes:
        buffer = io.BytesIO()
        torch.save([part.state_dict() for part in (self.model, self.criterion, self.optimizer)], buffer)
        return buffer.getvalue()

    def load(self, saved: bytes) -> None:
        states = torch.load(io.BytesIO(saved), weights_only=True)
        for part, state in zip((self.model, self.criterion, self.optimizer), states, strict=True):
            part.load_state_dict(state)


def copied_state(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(module: nn.Module, state: State) -> None:
    assert module.state_dict().keys() == state.keys()
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


@EVERY
def test_a_fresh_object_resumes_exactly_from_the_state(name: str) -> None:
    straight = Run(smoothed_criterion(name))
    straight.steps(range(6))
    saved = straight.save()
    expected = straight.steps(range(6, 14))

    resumed = Run(smoothed_criterion(name))
    resumed.load(saved)

    assert torch.equal(resumed.steps(range(6, 14)), expected)
    assert torch.equal(resumed.model.trunk, straight.model.trunk)
    assert_same_state(resumed.criterion, copied_state(straight.criterion))


@EVERY
def test_an_absent_task_weighs_nothing_and_comes_back(name: str) -> None:
    run = Run(smoothed_criterion(name))
    run.steps(range(5))
    risk_before = run.criterion.risk.running()[1]

    weights = torch.stack([run.step(number, absent=1) for number in range(5, 8)])

    assert torch.all(weights[:, 1] == 0)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    torch.testing.assert_close(run.criterion.risk.running()[1], risk_before)
    assert run.criterion.risks["verb"].isnan()
    back = run.step(8)
    assert back.isfinite().all()
    assert back[1] > 0


@EVERY
def test_the_risk_of_an_absent_task_means_nothing(name: str) -> None:
    weightings = strategy(name), strategy(name)
    counts = torch.tensor([3.0, 0.0, 2.0])
    for step in range(6):
        risks = torch.tensor([1.0 + step, 2.0, 3.0 - step / 3])
        for weighting, garbage in zip(weightings, (7.0, torch.nan), strict=True):
            risks[1] = garbage
            weighting.observe(torch.eye(3) * (1 + step))
            assert weighting.weights(risks, counts)[[0, 2]].isfinite().all()
            weighting.update(risks.clone(), counts)
        assert_same_state(weightings[1], copied_state(weightings[0]))


@EVERY
@pytest.mark.parametrize(("reduction", "expected"), [("mean", 1.0), ("sum", 3.0), ("paper", None)])
def test_weights_are_finite_not_negative_and_have_the_sum_of_the_reduction(
    name: str, reduction: str, expected: float | None
) -> None:
    weights = Run(smoothed_criterion(name, reduction=reduction)).steps(range(12))

    assert weights.isfinite().all()
    assert torch.all(weights >= 0)
    if expected is not None:
        torch.testing.assert_close(weights.sum(1), torch.full((12,), expected))


@EVERY
def test_permuted_tasks_have_permuted_weights(name: str) -> None:
    if name == "RandomWeights":
        pytest.skip("draws do not follow the tasks")
    order = [2, 0, 1]
    changes = {"values": [ARGUMENTS["Fixed"]["values"][t] for t in order]} if name == "Fixed" else {}
    criterion = MultiTaskLoss(TASKS, strategy(name))
    permuted = MultiTaskLoss(TASKS, strategy(name, **changes))
    generator = torch.Generator().manual_seed(3)
    for _ in range(10):
        shared = torch.randn(4, generator=generator).requires_grad_()
        sums = (torch.randn(3, 4, generator=generator) @ shared).square()
        counts = torch.tensor([5.0, 2.0, 9.0])
        criterion(TaskLosses(sums, counts), shared=shared)
        permuted(TaskLosses(sums[order], counts[order]), shared=shared)
        torch.testing.assert_close(permuted.weight_vector, criterion.weight_vector[order])


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_losses_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    criteria = smoothed_criterion(name), smoothed_criterion(name)
    generator = torch.Generator().manual_seed(4)
    for _ in range(6):
        shared = torch.randn(4, generator=generator).to(dtype).requires_grad_()
        sums = (torch.randn(3, 4, generator=generator).to(dtype) @ shared).square()
        counts = torch.tensor([5, 2, 9])
        half = criteria[0](TaskLosses(sums, counts), shared=shared)
        single = criteria[1](TaskLosses(sums.float(), counts), shared=shared)
        assert half.dtype == criteria[0].weight_vector.dtype == torch.float32
        assert torch.equal(criteria[0].weight_vector, criteria[1].weight_vector)
        assert torch.equal(half, single)


@EVERY
def test_weights_do_not_depend_on_the_scale_of_the_gradient_scaler(name: str) -> None:
    plain, scaled = Run(smoothed_criterion(name)), Run(smoothed_criterion(name), scale=2.0**12)

    assert torch.equal(scaled.steps(range(8)), plain.steps(range(8)))
    assert torch.equal(scaled.model.trunk, plain.model.trunk)


@EVERY
def test_evaluation_changes_no_state(name: str) -> None:
    run = Run(smoothed_criterion(name))
    run.steps(range(4))
    before = copied_state(run.criterion)
    run.criterion.eval()

    with torch.no_grad():
        total = run.criterion(run.model(*batch(9)))

    assert total.isfinite()
    assert_same_state(run.criterion, before)


@EVERY
def test_weights_reported_are_the_weights_applied(name: str) -> None:
    criterion = smoothed_criterion(name, auxiliary={"nsp": 0.25})
    generator = torch.Generator().manual_seed(5)
    counts = torch.tensor([5.0, 2.0, 9.0, 4.0])
    for _ in range(5):
        shared = torch.randn(6, generator=generator).requires_grad_()
        sums = (torch.randn(4, 6, generator=generator) @ shared).square()
        total = criterion(TaskLosses(sums, counts), shared=shared)

        (gradient,) = torch.autograd.grad(total, sums)

        units = torch.cat([criterion.risk.unit(), torch.ones(1)])
        torch.testing.assert_close(torch.stack(list(criterion.weights.values())), gradient * counts * units)
        torch.testing.assert_close(total, (criterion.weight_vector * sums / counts / units).sum())


@EVERY
def test_copies_and_pickles_continue_like_the_original(name: str) -> None:
    run = Run(smoothed_criterion(name))
    run.steps(range(5))
    copies = copy.deepcopy(run), pickle.loads(pickle.dumps(run))
    expected = run.steps(range(5, 9))

    for copied in copies:
        assert torch.equal(copied.steps(range(5, 9)), expected)


class HostReads(TorchDispatchMode):
    """Counts the operators whose result Python waits for."""

    waiting = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.waiting:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@EVERY
def test_a_step_reads_no_value_on_the_host(name: str) -> None:
    run = Run(smoothed_criterion(name, on_nonfinite="skip"))
    losses = run.model(*batch(0))

    with HostReads() as reads:
        for _ in range(3):
            run.criterion(losses, shared=[run.model.trunk])
            _ = run.criterion.weights, run.criterion.risks, run.criterion.effective_tasks
    assert reads.seen == []

    with HostReads() as reads:
        _ = run.criterion.worst_task
    assert reads.seen == ["aten._local_scalar_dense.default"]


@EVERY
def test_a_step_off_the_cpu_reads_no_value_on_the_host(name: str) -> None:
    # A meta tensor has no values: whatever looks at one raises.
    criterion = smoothed_criterion(name).to("meta")
    shared = torch.randn(4, device="meta", requires_grad=True)
    losses = TaskLosses((torch.randn(3, 4, device="meta") @ shared).square(), torch.ones(3, device="meta"))

    criterion(losses, shared=shared).backward()
    with criterion.accumulate(losses.counts):
        criterion(losses._replace(sums=losses.sums.detach().requires_grad_() * shared[0]), shared=shared).backward()


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch.compiler.reset()


def assert_compiles_to_one_graph(name: str, backend: str, tolerance: float, **options: Any) -> None:
    compiled, eager = smoothed_criterion(name, **options), smoothed_criterion(name, **options)
    if compiled.weighting.needs_gramian:
        pytest.skip("torch.autograd.grad inside of a graph: the strategy by itself is compiled below")
    compiled_call = torch.compile(compiled, fullgraph=True, backend=backend)
    generator = torch.Generator().manual_seed(6)
    for step in range(20):
        sums = torch.rand(3, generator=generator).requires_grad_()
        counts = torch.tensor([5.0, step % 3, 9.0])
        compiled_call(TaskLosses(sums * counts, counts)).backward()
        eager(TaskLosses(sums.detach() * counts, counts))
        torch.testing.assert_close(compiled.weight_vector, eager.weight_vector, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(sums.grad, eager.weight_vector / eager.risk.unit(), rtol=tolerance, atol=tolerance)


compiler_warnings = pytest.mark.filterwarnings(
    # Dynamo looks at .grad of what goes into a graph, to which losses are no leaves.
    "ignore:The .grad attribute of a Tensor that is not a leaf",
    # Inductor uses it itself.
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
)


@EVERY
@compiler_warnings
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("on_nonfinite", ["raise", pytest.param("skip", marks=pytest.mark.slow)])
def test_the_criterion_compiles_to_one_graph_without_recompilation(name: str, on_nonfinite: str) -> None:
    # Its partitioner is inductor's, which moves computations into the backward pass.
    assert_compiles_to_one_graph(name, backend="aot_eager_decomp_partition", tolerance=1e-6, on_nonfinite=on_nonfinite)


@EVERY
@compiler_warnings
@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
def test_the_criterion_computes_the_same_under_inductor(name: str) -> None:
    assert_compiles_to_one_graph(name, backend="inductor", tolerance=1e-5)


@EVERY
@pytest.mark.usefixtures("_fresh_compiler")
def test_the_strategy_compiles_to_one_graph_without_recompilation(name: str) -> None:
    compiled, eager = strategy(name), strategy(name)

    @torch.no_grad()
    def step(weighting: Weighting, risks: Tensor, counts: Tensor, gramian: Tensor) -> Tensor:
        weighting.observe(gramian)
        weights = weighting.weights(risks, counts)
        weighting.update(risks, counts)
        return weights

    compiled_step = torch.compile(step, fullgraph=True, backend="aot_eager")
    generator = torch.Generator().manual_seed(7)
    for number in range(20):
        risks, counts = torch.rand(3, generator=generator) + 0.1, torch.tensor([5.0, number % 3, 9.0])
        jacobian = torch.randn(3, 4, generator=generator)
        arguments = risks, counts, jacobian @ jacobian.T
        torch.testing.assert_close(compiled_step(compiled, *arguments), step(eager, *arguments))
