import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Self, get_args

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from taskrobust._guard import Guard
from taskrobust._inputs import Losses, as_task_losses
from taskrobust._state import FixedTensor, StatefulModule
from taskrobust.faults import Faults, OnNonfinite
from taskrobust.outputs import DisjointRows, Outputs, Shared, TaskLosses
from taskrobust.ranks import Ranks
from taskrobust.risk import RiskEstimator
from taskrobust.step import Step, StepReport
from taskrobust.weighting import Weighting, make_weighting


class MultiTaskLoss(StatefulModule):
    r"""Turns the losses of several tasks into the one total to call ``backward`` on.

    .. math:: L = \sum_t w_t r_t

    with risks :math:`r_t`, the mean losses over the batches of all ranks, and weights :math:`w_t` of a strategy. Each
    call in training mode with gradients enabled is a step, which the strategy learns from. Any other call returns the
    total of this rank's batch, changes nothing and communicates nothing. All state stays in float32, whatever ``.to``
    asks for.

    Call it on the model's outputs, outside of ``torch.utils.checkpoint``, ``torch.func.grad`` and ``vmap``: these call
    their function again, or with tensors that must not be kept.

    Example:
        >>> criterion = MultiTaskLoss(["noun", "verb"], weighting="softmax_minimax")
        >>> total = criterion({"noun": torch.tensor(2.0, requires_grad=True), "verb": torch.tensor(1.0)})
        >>> total.backward()
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.88, 'verb': 0.12}

    Args:
        tasks: Names of the tasks, in the order of the model's ``TaskLosses``.
        weighting: The strategy, or its name for one with its defaults.
        risk: How risks are smoothed and normalized, and what is subtracted from them. None uses the risks of each batch
            in their own units.
        auxiliary: Tasks outside of the weighting with their fixed weights. In ``TaskLosses`` they follow the others.
        weight_sum: Sum of the weights of the present tasks: a number, or ``"tasks"`` for their number. ``"paper"``
            keeps the scale of the strategy's paper, so that strategies differ in the size of their steps.
        min_weight: Smallest share of any present task in that sum.
        on_nonfinite: How to handle a loss that is NaN or infinite. ``raise``: a ``NonFiniteLossError`` that names the
            task, on the CPU at once, on other devices when :meth:`check_finite` is called. ``skip``: the total is 0, no
            state changes, ``last.finite`` is False and the step is counted in ``skipped``. Its gradients may be NaN:
            call :meth:`guard` once, so that the optimizer skips the step, too.
        process_group: The ranks that share a batch. None is all of them. Copies share it, pickles do not hold it.

    Raises:
        ValueError: If tasks, weighting and risk do not fit each other.
    """

    skipped: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        weighting: Weighting | str = "softmax_minimax",
        *,
        risk: RiskEstimator | None = None,
        auxiliary: Mapping[str, float] | None = None,
        weight_sum: float | Literal["tasks", "paper"] = 1.0,
        min_weight: float = 0.0,
        on_nonfinite: OnNonfinite = "raise",
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        auxiliary = dict(auxiliary or {})
        _check_names(tasks, auxiliary)
        number = len(tasks)
        if isinstance(weighting, str):
            weighting = make_weighting(weighting)
        if not isinstance(weighting, Weighting):
            raise ValueError(f"Expected a weighting, such as SoftmaxMinimax(), or its name, got {weighting!r}.")
        if not all(0 <= weight < math.inf for weight in auxiliary.values()):
            raise ValueError(f"Expected finite auxiliary weights of 0 or more, got {auxiliary}.")
        is_sum = weight_sum in ("tasks", "paper") if isinstance(weight_sum, str) else 0 < weight_sum < math.inf
        if not is_sum:
            raise ValueError(f"Expected a positive number, 'tasks' or 'paper' as weight_sum, got {weight_sum!r}.")
        if min_weight > 0 and weight_sum == "paper":
            raise ValueError(f"Expected min_weight=0 with weight_sum='paper', where sums differ, got {min_weight}.")
        if not 0 <= min_weight * number <= 1:
            raise ValueError(f"Expected min_weight in [0, 1 / {number}] for {number} tasks, got {min_weight}.")
        if min_weight > 0 and weighting.signed:
            raise ValueError(
                f"Expected min_weight=0 with {type(weighting).__name__}, which may return negative weights, got "
                f"{min_weight}."
            )
        if on_nonfinite not in get_args(OnNonfinite):
            raise ValueError(f"Expected on_nonfinite among {list(get_args(OnNonfinite))}, got {on_nonfinite!r}.")
        self.weighted_tasks = tuple(tasks)
        self.tasks = (*tasks, *auxiliary)
        self.weighting = weighting
        self.risk = risk if risk is not None else RiskEstimator()
        self.weight_sum = weight_sum
        self.min_weight = min_weight
        self.on_nonfinite = on_nonfinite
        self.ranks = Ranks(process_group)
        self._auxiliary = FixedTensor(list(auxiliary.values()))
        self._window: Step | None = None
        self._last: StepReport | None = None
        self._names_compared = False
        self._guards: list[Guard] = []
        parts = (self.weighting, self.risk)
        new = [part for part in parts if part.tasks is None]
        try:
            for part in parts:
                part.setup(self.weighted_tasks)
        except ValueError:
            for part in new:
                part.tasks = None  # so that it can be used again
            raise
        self.faults = Faults(self.tasks, weighting, self.risk.reference is not None, on_nonfinite)
        self._register_state()
        self._built_on_meta = self.skipped.is_meta

    def initial_state(self) -> Mapping[str, Tensor]:
        """No steps."""
        return {"skipped": torch.zeros((), dtype=torch.int64)}

    def forward(self, losses: Losses, shared: Shared | None = None, reference: Losses | None = None) -> Tensor:
        """Weighted total of one batch, shape [], differentiable.

        Args:
            losses: ``TaskLosses`` over all tasks, ``Outputs`` that hold them, or the mean loss of each task by name:
                a tensor of shape [], or a pair of it and its number of elements, or None for an absent task; or mean
                losses in one tensor of shape [T].
            shared: Shared parameters or activation, for strategies that need gradients: parameters of the last shared
                layer, the activation after it, or ``DisjointRows``. None uses that of ``Outputs``.
            reference: Losses of the reference model on the same elements, for ``ModelReference``.

        Raises:
            ValueError: If the losses are not those of the tasks, or ``shared`` or ``reference`` is missing.
            NonFiniteLossError: See ``on_nonfinite``.
        """
        if isinstance(losses, Outputs):
            shared = losses.shared if shared is None else shared
        own = self.as_task_losses(losses)
        if reference is not None:
            own = own.with_reference(self.as_task_losses(reference))
        self._recover_from_meta()
        with _without_autocast(own.sums.device.type):
            if not self._learns:
                local = own.detach()
                return Step(self, local.counts, local, learns=False).add(own, None)
            self._check_reference(own)
            if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
                raise ValueError(
                    "Expected one call of the criterion per step, got another one during backward, as inside of "
                    "torch.utils.checkpoint. Call it on the outputs of what is checkpointed."
                )
            if self.weighting.needs_gramian and shared is None:
                raise ValueError(
                    f"{type(self.weighting).__name__} needs what the tasks share: call criterion(losses, shared=...) "
                    "with the parameters of the last shared layer or the activation after it."
                )
            if self.weighting.needs_conflicts and isinstance(shared, DisjointRows):
                raise ValueError(
                    f"{type(self.weighting).__name__} needs conflicts between tasks, which DisjointRows cannot show, "
                    "since each row belongs to one task: call criterion(losses, shared=...) with the parameters of the "
                    "last shared layer."
                )
            if self._window is not None:
                return self._window.add(own, shared)
            self._compare_names()
            for guard in self._guards:
                guard.begin()
            pooled = self.ranks.pool(own)
            step = Step(self, pooled.counts, pooled)
            total = step.add(own, shared)
            self._close(step)
            return total

    @contextmanager
    def accumulate(
        self, *, counts: Tensor | None = None, losses: TaskLosses | None = None, divided_by: float = 1.0
    ) -> Iterator[None]:
        """Treat all calls inside the context as one step: their gradients sum to that of the combined batch.

        The weights are fixed when the window opens. Given the window's ``counts`` they follow from the running risks up
        to the step before, at no extra cost. Given its ``losses``, from a first pass without gradient, they follow from
        the risks of the window itself, exactly as if it were one batch. Ranks may have windows of different lengths.

        Example:
            >>> criterion = MultiTaskLoss(["noun", "verb"])
            >>> window = [TaskLosses(torch.tensor([6.0, 0.0], requires_grad=True), torch.tensor([2, 0])),
            ...           TaskLosses(torch.tensor([1.0, 4.0], requires_grad=True), torch.tensor([1, 3]))]
            >>> with criterion.accumulate(counts=sum(batch.counts for batch in window)):
            ...     for batch in window:
            ...         criterion(batch).backward()  # not divided by the number of batches

        Args:
            counts: This rank's element counts of each task over the window, shape [T].
            losses: This rank's losses over the window, from ``pool_batches``. One of the two is given.
            divided_by: Number by which a framework divides each total before it calls ``backward``, such as the number
                of batches in the window: the totals are multiplied by it.

        Raises:
            ValueError: If the losses that came had other counts. Checked on the CPU, where it costs nothing.
        """
        if (counts is None) == (losses is None):
            raise ValueError("Expected counts or losses of the window, got " + ("none." if counts is None else "both."))
        if not divided_by > 0:
            raise ValueError(f"Expected a positive divided_by, got {divided_by}.")
        if self._window is not None:
            raise ValueError("Expected one accumulation window at a time, got one inside of another.")
        if not self._learns:
            yield
            return
        self._recover_from_meta()
        self._compare_names()
        for guard in self._guards:
            guard.begin()
        before = [(buffer, buffer.clone()) for buffer in self.risk.buffers()]
        try:
            if losses is not None:
                own = self.as_task_losses(losses)
                self._check_reference(own)
                pooled = self.ranks.pool(own)
                step = Step(self, pooled.counts, pooled, window=True, multiplier=divided_by)
            else:
                assert counts is not None
                only_counts = self.as_task_losses(TaskLosses(torch.zeros_like(counts), counts))
                step = Step(self, self.ranks.pool(only_counts).counts, window=True, multiplier=divided_by)
            self._window = step
            yield
            self._close(step)
        except BaseException:
            for buffer, old in before:
                buffer.copy_(old)
            raise
        finally:
            self._window = None

    def guard(self, optimizer: Optimizer) -> Guard:
        """Make an optimizer skip the steps whose losses were not finite, without waiting for the device.

        Call it once. A step is skipped if any loss since the step before was not finite. Optimizers that know a
        gradient scaler (``fused=True``) skip the whole step. With others, gradients become None on a CPU, which skips
        the step as well, and 0 on other devices, where momentum and weight decay still act.

        Example:
            >>> weight = torch.ones(1, requires_grad=True)
            >>> criterion = MultiTaskLoss(["noun"], on_nonfinite="skip")
            >>> optimizer = torch.optim.AdamW([weight])
            >>> _ = criterion.guard(optimizer)
            >>> criterion({"noun": (weight * torch.nan).sum()}).backward()  # a total of 0 with a gradient of NaN
            >>> optimizer.step()
            >>> weight
            tensor([1.], requires_grad=True)

        Args:
            optimizer: The optimizer.

        Returns:
            A handle whose ``remove`` undoes it.
        """
        guard = Guard(optimizer)
        self._guards.append(guard)
        return guard

    def end_epoch(self) -> None:
        """Tell the strategy that an epoch is over, for those that count epochs (``DWA(period=None)``)."""
        self._recover_from_meta()
        self.weighting.end_epoch()

    def check_finite(self) -> None:
        """Raise if a step since the last call had an invalid loss or weight. Synchronizes with the device.

        Raises:
            NonFiniteLossError: If a loss was not finite, unless such steps are skipped. Names the tasks.
            ValueError: If a loss was outside of the strategy's domain, or a weight negative or not finite.
        """
        self._recover_from_meta()
        self.faults.check()

    @property
    def last(self) -> StepReport:
        """The last step of training. NaN before the first."""
        if self._last is not None:
            return self._last
        nothing = torch.full((len(self.tasks),), torch.nan, device=self.skipped.device)
        finite = torch.ones((), dtype=torch.bool, device=nothing.device)
        return StepReport(self.tasks, nothing, nothing, nothing[: len(self.weighted_tasks)], nothing[0], finite)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights applied in the last step, by task: ``last.weights``."""
        return self.last.weights

    @property
    def risks(self) -> dict[str, Tensor]:
        """Mean losses of the last step over all ranks, in their own units, by task: ``last.risks``."""
        return self.last.risks

    @property
    def excess(self) -> dict[str, Tensor]:
        """Risks of the last step as they are compared, by weighted task: ``last.excess``."""
        return self.last.excess

    def get_extra_state(self) -> Tensor:
        """The names that the entries of the state belong to, as bytes, since a state holds tensors."""
        return torch.tensor(list("\n".join(self.tasks).encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Check that a state is of the same tasks.

        Raises:
            ValueError: If it is not.
        """
        tasks = bytes(state.tolist()).decode().split("\n")
        if tasks != list(self.tasks):
            raise ValueError(f"Expected the state of the tasks {list(self.tasks)}, got that of {tasks}.")
        self._built_on_meta = False

    def reset_parameters(self) -> None:
        """Return to the state before the first step, in place, for instance after ``to_empty``."""
        super().reset_parameters()
        self._last = None
        self._built_on_meta = False

    def extra_repr(self) -> str:
        """Tasks and settings."""
        return f"tasks={list(self.tasks)}, weight_sum={self.weight_sum!r}, min_weight={self.min_weight:g}"

    def auxiliary_weights(self, device: torch.device) -> Tensor:
        """Weights of the auxiliary tasks."""
        return self._auxiliary.on(device)

    def _check_reference(self, losses: TaskLosses) -> None:
        needed = self.risk.needs_reference_model
        if needed and losses.reference is None:
            raise ValueError(
                f"{type(self.risk.reference).__name__} needs the losses of the reference model: call criterion(losses, "
                "reference=...) with its outputs."
            )
        if not needed and losses.reference is not None:
            raise ValueError(
                "Expected no losses of a reference model without RiskEstimator(reference=ModelReference()), got some."
            )

    def _close(self, step: Step) -> None:
        self._last = step.close()
        for guard in self._guards:
            guard.record(self._last.finite)

    @property
    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _recover_from_meta(self) -> None:
        """Fill the memory that transformers' ``from_pretrained`` leaves uninitialized, without a call."""
        if self._built_on_meta and not self.skipped.is_meta:
            self.reset_parameters()

    def _compare_names(self) -> None:
        """Compare the tasks' names over ranks, at the first step."""
        if self._names_compared or self.ranks.size == 1 or torch.compiler.is_compiling():
            return
        own = float(zlib.crc32("\n".join(self.tasks).encode()))
        total = self.ranks.sum(torch.full((), own, dtype=torch.float64, device=self.skipped.device))
        if total.item() != own * self.ranks.size:
            raise ValueError(
                f"Expected the same tasks in the same order on all ranks, got {list(self.tasks)} on rank "
                f"{dist.get_rank()} and others elsewhere. Use a list, whose order does not depend on the process."
            )
        self._names_compared = True

    def as_task_losses(self, losses: Losses) -> TaskLosses:
        """The losses of a batch, in any form that the criterion accepts, as ``TaskLosses`` of its tasks.

        Raises:
            ValueError: If they are not those of the tasks.
        """
        self._recover_from_meta()
        user = None
        if self.weighting.needs_counts:
            user = type(self.weighting).__name__
        elif self.risk.min_count > 0:
            user = f"RiskEstimator(min_count={self.risk.min_count:g})"
        return as_task_losses(losses, self.tasks, self.skipped.device, user)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def with_its_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        was_meta = self.skipped.is_meta
        super()._apply(with_its_dtype, recurse)
        if was_meta and not self.skipped.is_meta:
            self.reset_parameters()  # to_empty leaves memory uninitialized
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The state, as ``nn.Module.state_dict``."""
        self._recover_from_meta()
        return super().state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_window": None, "_guards": []}


def _check_names(tasks: Sequence[str], auxiliary: Mapping[str, float]) -> None:
    if isinstance(tasks, str) or not isinstance(tasks, Sequence) or not tasks:
        raise ValueError(f"Expected a list of one or more tasks with different names, got {tasks!r}.")
    names = (*tasks, *auxiliary)
    if len(set(names)) < len(names):
        raise ValueError(f"Expected a list of one or more tasks with different names, got {names}.")
    for name in names:
        if not isinstance(name, str) or not name or "\n" in name:
            raise ValueError(f"Expected names of tasks that are strings of one line, got {name!r}.")


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    enabled = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if enabled else nullcontext()
