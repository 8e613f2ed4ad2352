"""What every strategy keeps to, run over all of them: a new strategy needs no line here unless it has arguments."""

import copy
import io
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchjd.aggregation import UPGradWeighting
from transformers import PreTrainedConfig, PreTrainedModel

from taskrobust import (
    FixedReference,
    ModelReference,
    MultiTaskLoss,
    PowerLawReference,
    RiskEstimator,
    TaskLosses,
    Weighting,
    evaluate,
)
from taskrobust.weighting import strategies
from tests.helpers.devices import DEVICE, ROUNDING, on_device, rand, randn

TASKS = ("noun", "verb", "adjective")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Fixed": {"values": (0.5, 0.3, 0.2)},
    "DWA": {"period": 4},
    "Gramian": {"inner": UPGradWeighting()},
}
EVERY = pytest.mark.parametrize("name", strategies())
ASYNCHRONOUS = pytest.mark.parametrize("name", [name for name in strategies() if name != "Gramian"])
"""Strategies whose step does not wait for the device."""
REFERENCES = {
    "none": lambda: None,
    "fixed": lambda: FixedReference({"verb": 0.2, "noun": 0.1, "adjective": 0.3}),
    "model": ModelReference,
    "power law": PowerLawReference,
}
WITH_AND_WITHOUT_REFERENCES = pytest.mark.parametrize("reference", REFERENCES)

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _tensors_are_on_the_device() -> Iterator[None]:
    with nullcontext() if DEVICE.type == "cpu" else DEVICE:
        yield


def strategy(name: str, **changes: Any) -> Weighting:
    return strategies()[name](**(ARGUMENTS.get(name, {}) | changes))


def smoothed_criterion(name: str, reference: str = "none", **options: Any) -> MultiTaskLoss:
    risk = RiskEstimator(smoothing=0.9, normalization="initial", unit_steps=3, reference=REFERENCES[reference]())
    return on_device(MultiTaskLoss(TASKS, strategy(name), risk=risk, **options))


class Tagger(nn.Module):
    """Three regressions on one trunk, each row of a batch owned by one of them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Parameter(randn(4, 5, generator=generator))
        self.heads = nn.Parameter(randn(5, len(TASKS), generator=generator))

    def forward(self, inputs: Tensor, owner: Tensor) -> TaskLosses:
        predictions = (inputs @ self.trunk).tanh() @ self.heads
        errors = (predictions.gather(1, owner[:, None])[:, 0] - inputs.sum(1)).square()
        owned = owner == torch.arange(len(TASKS))[:, None]
        return TaskLosses(torch.where(owned, errors, 0).sum(1), owned.sum(1))


def batch(step: int, absent: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    owner = torch.tensor([0] * 7 + [1] * 3 + [2] * 5)
    owner = owner[owner != absent] if absent is not None else owner
    return randn(len(owner), 4, generator=generator), owner


class Run:
    """A training run."""

    def __init__(self, criterion: MultiTaskLoss, scale: float = 1.0) -> None:
        self.model = Tagger()
        self.frozen = Tagger(seed=1).requires_grad_(False)
        self.criterion = criterion
        self.optimizer = torch.optim.SGD([*self.model.parameters(), *criterion.parameters()], lr=0.05)
        self.scaler = torch.amp.GradScaler(DEVICE.type, init_scale=scale)

    def step(self, number: int, absent: int | None = None) -> Tensor:
        """The weights of a step."""
        self.optimizer.zero_grad()
        total = self.total(*batch(number, absent))
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.criterion.last.weight_vector

    def total(self, *inputs: Tensor) -> Tensor:
        reference = self.frozen(*inputs) if self.criterion.risk.needs_reference_model else None
        return self.criterion(self.model(*inputs), shared=[self.model.trunk], reference=reference)

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
@WITH_AND_WITHOUT_REFERENCES
def test_a_fresh_object_resumes_exactly_from_the_state(name: str, reference: str) -> None:
    straight = Run(smoothed_criterion(name, reference))
    straight.steps(range(6))
    saved = straight.save()
    expected = straight.steps(range(6, 14))

    resumed = Run(smoothed_criterion(name, reference))
    resumed.load(saved)

    assert torch.equal(resumed.steps(range(6, 14)), expected)
    assert torch.equal(resumed.model.trunk, straight.model.trunk)
    assert_same_state(resumed.criterion, copied_state(straight.criterion))


@EVERY
@WITH_AND_WITHOUT_REFERENCES
def test_an_absent_task_weighs_nothing_and_comes_back(name: str, reference: str) -> None:
    run = Run(smoothed_criterion(name, reference))
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
    weightings = on_device(strategy(name).setup(TASKS)), on_device(strategy(name).setup(TASKS))
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
@pytest.mark.parametrize(("weight_sum", "expected"), [(1.0, 1.0), (0.25, 0.25), ("tasks", 3.0), ("paper", None)])
def test_weights_are_finite_not_negative_and_have_the_weight_sum(
    name: str, weight_sum: float | str, expected: float | None
) -> None:
    weights = Run(smoothed_criterion(name, weight_sum=weight_sum)).steps(range(12))

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
    criterion = on_device(MultiTaskLoss(TASKS, strategy(name)))
    permuted = on_device(MultiTaskLoss(TASKS, strategy(name, **changes)))
    generator = torch.Generator().manual_seed(3)
    for _ in range(10):
        shared = randn(4, generator=generator).requires_grad_()
        sums = (randn(3, 4, generator=generator) @ shared).square()
        counts = torch.tensor([5.0, 2.0, 9.0])
        criterion(TaskLosses(sums, counts), shared=shared)
        permuted(TaskLosses(sums[order], counts[order]), shared=shared)
        torch.testing.assert_close(permuted.last.weight_vector, criterion.last.weight_vector[order])


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_losses_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    criteria = smoothed_criterion(name), smoothed_criterion(name)
    generator = torch.Generator().manual_seed(4)
    for _ in range(6):
        shared = randn(4, generator=generator).to(dtype).requires_grad_()
        sums = (randn(3, 4, generator=generator).to(dtype) @ shared).square()
        counts = torch.tensor([5, 2, 9])
        half = criteria[0](TaskLosses(sums, counts), shared=shared)
        single = criteria[1](TaskLosses(sums.float(), counts), shared=shared)
        assert half.dtype == criteria[0].last.weight_vector.dtype == torch.float32
        assert torch.equal(criteria[0].last.weight_vector, criteria[1].last.weight_vector)
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
        shared = randn(6, generator=generator).requires_grad_()
        sums = (randn(4, 6, generator=generator) @ shared).square()
        total = criterion(TaskLosses(sums, counts), shared=shared)

        (gradient,) = torch.autograd.grad(total, sums)

        units = torch.cat([criterion.risk.unit(), torch.ones(1)])
        applied = gradient.float() * counts * units
        torch.testing.assert_close(torch.stack(list(criterion.weights.values())), applied, rtol=ROUNDING, atol=1e-5)
        torch.testing.assert_close(total, (criterion.last.weight_vector * sums / counts / units).sum())


@EVERY
def test_copies_and_pickles_continue_like_the_original(name: str) -> None:
    run = Run(smoothed_criterion(name))
    run.steps(range(5))
    copies = copy.deepcopy(run), pickle.loads(pickle.dumps(run))
    expected = run.steps(range(5, 9))

    for copied in copies:
        assert torch.equal(copied.steps(range(5, 9)), expected)


def dirtied(module: nn.Module) -> None:
    """Fill all state with what uninitialized memory may hold."""
    for value in (*module.buffers(), *module.parameters()):
        value.data.fill_(77)


@EVERY
@pytest.mark.parametrize("resets", [True, False])
def test_a_criterion_from_the_meta_device_starts_like_any_other(name: str, resets: bool) -> None:
    with torch.device("meta"):
        criterion = smoothed_criterion(name, auxiliary={"nsp": 0.25})
    assert all(value.is_meta for value in (*criterion.buffers(), *criterion.parameters()))
    criterion.to_empty(device=DEVICE)
    if resets:  # to_empty does, too
        dirtied(criterion)
        criterion.reset_parameters()
    fresh = smoothed_criterion(name, auxiliary={"nsp": 0.25})

    assert_same_state(criterion, copied_state(fresh))
    counts = torch.tensor([5.0, 2.0, 9.0, 4.0])
    shared = torch.ones(4, requires_grad=True)
    totals = [each(TaskLosses(torch.arange(1.0, 5.0) * shared, counts), shared=shared) for each in (criterion, fresh)]
    assert torch.equal(*totals)


@EVERY
def test_a_state_can_be_assigned_to_a_criterion_on_the_meta_device(name: str) -> None:
    run = Run(smoothed_criterion(name))
    run.steps(range(5))
    with torch.device("meta"):
        criterion = smoothed_criterion(name)
    criterion.load_state_dict(copied_state(run.criterion), assign=True)

    assert not any(value.is_meta for value in (*criterion.buffers(), *criterion.parameters()))
    copied = copy.deepcopy(run)
    copied.criterion = criterion
    assert torch.equal(copied.step(5), run.step(5))


class PreTrainedTagger(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.trunk = nn.Linear(4, 5)
        if config.strategy is not None:
            self.criterion = smoothed_criterion(config.strategy, auxiliary={"nsp": 0.25})
        self.post_init()

    def total(self) -> Tensor:
        shared = torch.ones(4, requires_grad=True)
        losses = TaskLosses(torch.arange(1.0, 5.0) * shared, torch.tensor([5.0, 2.0, 9.0, 4.0]))
        return self.criterion(losses, shared=shared)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_criterion_inside_a_model_of_transformers_survives_from_pretrained(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = PreTrainedTagger(PreTrainedConfig(strategy=name)).to(DEVICE)
    model.total()
    model.save_pretrained(tmp_path / "with")
    bare = PreTrainedTagger(PreTrainedConfig(strategy=None))
    bare.save_pretrained(tmp_path / "without")

    loaded = PreTrainedTagger.from_pretrained(tmp_path / "with", dtype=dtype).to(DEVICE).train()
    assert loaded.trunk.weight.dtype == dtype
    assert_same_state(loaded.criterion, copied_state(model.criterion))
    assert torch.equal(loaded.total(), model.total())

    config = PreTrainedConfig(strategy=name)
    loaded = PreTrainedTagger.from_pretrained(tmp_path / "without", config=config, dtype=dtype).to(DEVICE).train()
    fresh = PreTrainedTagger(config).to(DEVICE)
    assert_same_state(loaded.criterion, copied_state(fresh.criterion))
    assert torch.equal(loaded.total(), fresh.total())


@EVERY
def test_state_is_float32_under_another_default_dtype(name: str) -> None:
    expected = smoothed_criterion(name, auxiliary={"nsp": 0.3})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        criterion = smoothed_criterion(name, auxiliary={"nsp": 0.3})
    finally:
        torch.set_default_dtype(before)

    for key, value in criterion.state_dict().items():
        assert value.dtype == expected.state_dict()[key].dtype
    counts, shared = torch.tensor([5.0, 2.0, 9.0, 4.0]), torch.ones(4, requires_grad=True)
    for _ in range(3):
        losses = TaskLosses(torch.tensor([3.3, 3.31, 1.7, 0.1]) * shared, counts)
        assert torch.equal(criterion(losses, shared=shared), expected(losses, shared=shared))
    assert torch.equal(criterion.last.weight_vector, expected.last.weight_vector)


@EVERY
def test_evaluation_between_steps_changes_nothing(name: str) -> None:
    plain, watched = Run(smoothed_criterion(name)), Run(smoothed_criterion(name))
    expected = plain.steps(range(6))
    weights = []
    for number in range(6):
        weights.append(watched.step(number))
        watched.criterion.eval()
        with torch.no_grad():
            watched.criterion(watched.model(*batch(100 + number)))
        watched.criterion.train()
        evaluate(watched.model, watched.criterion, [batch(200 + number), batch(300 + number)])
        assert torch.equal(watched.criterion.last.weight_vector, weights[-1])
    assert torch.equal(torch.stack(weights), expected)
    assert_same_state(watched.criterion, copied_state(plain.criterion))


def _with_reference_of_other_devices(losses: TaskLosses, reference: TaskLosses) -> TaskLosses:
    return TaskLosses(losses.sums, losses.counts, losses.tasks, reference.sums.detach())


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


@ASYNCHRONOUS
@WITH_AND_WITHOUT_REFERENCES
def test_a_step_reads_no_value_on_the_host(name: str, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrobust.faults._is_read_at_once", lambda values: False)  # as on other devices
    monkeypatch.setattr(TaskLosses, "with_reference", _with_reference_of_other_devices)
    run = Run(smoothed_criterion(name, reference, on_nonfinite="skip"))
    inputs = batch(0)

    with HostReads() as reads:
        for _ in range(3):
            run.total(*inputs)
            _ = run.criterion.weights, run.criterion.risks, run.criterion.last.effective_tasks
    assert reads.seen == []

    with HostReads() as reads:
        _ = run.criterion.last.worst_task
    assert reads.seen == ["aten._local_scalar_dense.default"]


@ASYNCHRONOUS
def test_a_step_off_the_cpu_reads_no_value_on_the_host(name: str) -> None:
    # A meta tensor has no values: whatever looks at one raises.
    criterion = smoothed_criterion(name).to("meta")
    shared = torch.randn(4, device="meta", requires_grad=True)
    losses = TaskLosses((torch.randn(3, 4, device="meta") @ shared).square(), torch.ones(3, device="meta"))

    criterion(losses, shared=shared).backward()
    with criterion.accumulate(counts=losses.counts):
        criterion(
            TaskLosses(losses.sums.detach().requires_grad_() * shared[0], losses.counts), shared=shared
        ).backward()


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch.compiler.reset()


def assert_compiles_to_one_graph(
    name: str, backend: str, tolerance: float, reference: str = "none", **options: Any
) -> None:
    compiled, eager = (smoothed_criterion(name, reference, **options) for _ in range(2))
    if compiled.weighting.needs_gramian:
        pytest.skip("torch.autograd.grad inside of a graph: the strategy by itself is compiled below")
    compiled_call = torch.compile(compiled, fullgraph=True, backend=backend)
    generator = torch.Generator().manual_seed(6)
    for step in range(20):
        sums = rand(3, generator=generator).requires_grad_()
        counts = torch.tensor([5.0, step % 3, 9.0])
        frozen = TaskLosses(counts * torch.tensor([0.1, 0.2, 0.3]), counts) if reference == "model" else None
        compiled_call(TaskLosses(sums * counts, counts), reference=frozen).backward()
        eager(TaskLosses(sums.detach() * counts, counts), reference=frozen)
        torch.testing.assert_close(
            compiled.last.weight_vector, eager.last.weight_vector, rtol=tolerance, atol=tolerance
        )
        assert sums.grad is not None
        expected = eager.last.weight_vector / eager.risk.unit()
        torch.testing.assert_close(sums.grad.float(), expected, rtol=max(tolerance, ROUNDING), atol=tolerance)


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


@pytest.mark.parametrize(
    "name",
    ["SoftmaxMinimax", *(pytest.param(n, marks=pytest.mark.slow) for n in strategies() if n != "SoftmaxMinimax")],
)
@pytest.mark.parametrize("reference", [reference for reference in REFERENCES if reference != "none"])
@compiler_warnings
@pytest.mark.usefixtures("_fresh_compiler")
def test_excess_risks_compile_to_one_graph_without_recompilation(name: str, reference: str) -> None:
    assert_compiles_to_one_graph(name, backend="aot_eager_decomp_partition", tolerance=1e-5, reference=reference)


@EVERY
@compiler_warnings
@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
def test_the_criterion_computes_the_same_under_inductor(name: str) -> None:
    assert_compiles_to_one_graph(name, backend="inductor", tolerance=1e-5)


@ASYNCHRONOUS
@pytest.mark.usefixtures("_fresh_compiler")
def test_the_strategy_compiles_to_one_graph_without_recompilation(name: str) -> None:
    compiled, eager = on_device(strategy(name).setup(TASKS)), on_device(strategy(name).setup(TASKS))

    @torch.no_grad()
    def step(weighting: Weighting, risks: Tensor, counts: Tensor, gramian: Tensor) -> Tensor:
        weighting.observe(gramian)
        weights = weighting.weights(risks, counts)
        weighting.update(risks, counts)
        return weights

    compiled_step = torch.compile(step, fullgraph=True, backend="aot_eager")
    generator = torch.Generator().manual_seed(7)
    for number in range(20):
        risks, counts = rand(3, generator=generator) + 0.1, torch.tensor([5.0, number % 3, 9.0])
        jacobian = randn(3, 4, generator=generator)
        arguments = risks, counts, jacobian @ jacobian.T
        torch.testing.assert_close(compiled_step(compiled, *arguments), step(eager, *arguments))
