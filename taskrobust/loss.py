from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from taskrobust.compiling import kept_for_backward
from taskrobust.risk import RiskEstimator, TaskLosses, global_mean, pool_ranks, world_size
from taskrobust.rollback import changing_buffers, undone_unless
from taskrobust.weighting import Weighting, make_weighting
from taskrobust.weighting.gramian import GramianEstimator, Shared

Reduction = Literal["mean", "sum", "paper"]
OnNonfinite = Literal["raise", "skip"]


class NonFiniteLossError(FloatingPointError):
    """The loss of a task is NaN or infinite."""


@dataclass
class _Step:
    """One step of the optimiser: the batch of one call, or the batches of an accumulation window."""

    counts: Tensor  # of the whole step over all ranks, for each task
    denominators: Tensor
    unit: Tensor
    running: Tensor  # the weighted tasks' risks that the weights come from
    learnt: bool  # whether ``running`` holds this step's losses already
    gramian: GramianEstimator
    sums: Tensor  # what has come so far
    seen_counts: Tensor
    finite: Tensor
    weights: Tensor = field(init=False)


class MultiTaskLoss(nn.Module):
    r"""Turns the losses of several tasks into the one total to call ``backward`` on.

    .. math:: L = \sum_t w_t r_t

    with risks :math:`r_t` over the batches of all ranks and weights :math:`w_t` of a strategy. In evaluation mode the
    total is computed in the same way and nothing is learnt. All state stays in float32, whatever ``.to`` asks for.

    Example:
        >>> criterion = MultiTaskLoss(["noun", "verb"], weighting="softmax_minimax")
        >>> total = criterion({"noun": torch.tensor(2.0, requires_grad=True), "verb": torch.tensor(1.0)})
        >>> total.backward()
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.73, 'verb': 0.27}

    Args:
        tasks: Names of the tasks, in the order of the model's ``TaskLosses``.
        weighting: The strategy, or its name for one with its defaults.
        risk: How risks are smoothed and normalised. None takes the risks of each batch in their own units.
        auxiliary: Tasks outside of the weighting with their fixed weights. In ``TaskLosses`` they follow the others.
        reduction: Sum of the weights of the present tasks. ``mean``: 1. ``sum``: their number. ``paper``: what the
            strategy's paper has, so that strategies differ in the size of their steps.
        min_weight: Smallest share of any present task in that sum.
        on_nonfinite: What to do about a loss that is NaN or infinite. ``raise``: a ``NonFiniteLossError`` that names
            the task, on the CPU at once, on other devices when :meth:`check_finite` is called. ``skip``: the total is
            0, no state changes, ``finite`` is False and the step is counted in ``skipped``; leave the optimiser's step
            out.
        process_group: The ranks that share a batch. None takes all.

    Raises:
        ValueError: If tasks, weighting and risk do not fit each other.
    """

    weight_vector: Tensor
    risk_vector: Tensor
    finite: Tensor
    skipped: Tensor
    nonfinite_counts: Tensor
    auxiliary_weights: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        weighting: Weighting | str = "softmax_minimax",
        *,
        risk: RiskEstimator | None = None,
        auxiliary: Mapping[str, float] | None = None,
        reduction: Reduction = "mean",
        min_weight: float = 0.0,
        on_nonfinite: OnNonfinite = "raise",
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.weighted_tasks = tuple(tasks)
        self.tasks = (*tasks, *(auxiliary or {}))
        if isinstance(tasks, str) or not tasks or len(set(self.tasks)) < len(self.tasks):
            got = tasks if isinstance(tasks, str) or not tasks else self.tasks
            raise ValueError(f"Expected a list of one or more tasks with different names, got {got!r}.")
        number = len(tasks)
        self.weighting = make_weighting(weighting, number) if isinstance(weighting, str) else weighting
        if not isinstance(self.weighting, Weighting):
            raise ValueError(f"Expected a weighting, such as SoftmaxMinimax({number}), or its name, got {weighting!r}.")
        self.risk = risk if risk is not None else RiskEstimator(number)
        for part in (self.weighting, self.risk):
            if part.num_tasks != number:
                raise ValueError(
                    f"Expected a {type(part).__name__} of {number} tasks for {list(tasks)}, "
                    f"got one of {part.num_tasks}."
                )
        if min_weight > 0 and reduction == "paper":
            raise ValueError(f"Expected min_weight=0 with reduction='paper', where sums differ, got {min_weight}.")
        if not 0 <= min_weight * number <= 1:
            raise ValueError(f"Expected min_weight in [0, 1 / {number}] for {number} tasks, got {min_weight}.")
        if reduction not in get_args(Reduction):
            raise ValueError(f"Expected a reduction among {list(get_args(Reduction))}, got {reduction!r}.")
        if on_nonfinite not in get_args(OnNonfinite):
            raise ValueError(f"Expected on_nonfinite among {list(get_args(OnNonfinite))}, got {on_nonfinite!r}.")
        self.reduction = reduction
        self.min_weight = min_weight
        self.on_nonfinite = on_nonfinite
        self.process_group = process_group
        self._window: _Step | None = None
        self.register_buffer("auxiliary_weights", torch.tensor([*(auxiliary or {}).values()]), persistent=False)
        for name in ("weight_vector", "risk_vector"):
            self.register_buffer(name, torch.full((len(self.tasks),), torch.nan), persistent=False)
        self.register_buffer("finite", torch.ones((), dtype=torch.bool), persistent=False)
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("nonfinite_counts", torch.zeros(len(self.tasks), dtype=torch.int64))

    def forward(self, losses: TaskLosses | Mapping[str, Tensor | None], shared: Shared | None = None) -> Tensor:
        """Weighted total of one batch, shape [], differentiable.

        Args:
            losses: ``TaskLosses`` over all tasks, or the mean loss of each task by name, None for an absent task.
            shared: What the tasks share, for strategies that need gradients: parameters of the last shared layer, the
                activation after it, or ``DisjointRows``.

        Raises:
            ValueError: If the losses are not those of the tasks, or ``shared`` is missing.
            NonFiniteLossError: See ``on_nonfinite``.
        """
        losses = self._task_losses(losses)
        if self.weighting.needs_gramian and shared is None and self.training:
            raise ValueError(
                f"{type(self.weighting).__name__} needs what the tasks share: call criterion(losses, shared=...) with "
                "the parameters of the last shared layer or the activation after it."
            )
        pooled = pool_ranks(losses, self.process_group)
        self._check(pooled.sums)
        if self._window is not None:
            return self._add(self._window, self._risks(self._window, losses, pooled, shared), pooled)
        step = self._open(pooled.counts, pooled.sums)
        risks = self._risks(step, losses, pooled, shared)
        self._observe(step)
        step.weights = self._weights(step)
        total = self._add(step, risks, pooled)
        self._close(step)
        return total

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MultiTaskLoss":
        def in_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if tensor.is_floating_point() else moved

        super()._apply(in_float32, recurse)  # type: ignore[no-untyped-call]
        return self

    @contextmanager
    def accumulate(self, window: Tensor | TaskLosses) -> Iterator[None]:
        """Makes the calls inside the context one step: their totals' gradients add up to that of the union batch.

        The weights are fixed when the window opens. Given the window's counts they come from the running risk up to the
        step before, which costs nothing. Given its losses, from a first pass without gradient, they come from the risks
        of the window itself, exactly as if it were one batch.

            with criterion.accumulate(sum(counts_of(batch) for batch in window)):
                for batch in window:
                    criterion(model(batch)).backward()  # not divided by the number of batches
            optimizer.step()

        Args:
            window: This rank's element counts of each task over the window, shape [tasks], or its pooled
                ``TaskLosses``.

        Raises:
            ValueError: If the losses that came had other counts. Checked on the CPU, where it costs nothing.
        """
        before = [(buffer, buffer.clone()) for buffer in changing_buffers(self.risk)]
        if isinstance(window, TaskLosses):
            pooled = pool_ranks(self._task_losses(window), self.process_group)
            self._check(pooled.sums)
            step = self._open(*reversed(pooled))
        elif isinstance(window, Tensor):
            counts_alone = self._task_losses(TaskLosses(torch.zeros_like(window), window))
            step = self._open(pool_ranks(counts_alone, self.process_group).counts)
        else:
            raise ValueError(f"Expected the counts or the TaskLosses of the window, got {type(window).__name__}.")
        step.weights = self._weights(step)
        self._window = step
        try:
            yield
            self._check_counts(step)
            self._observe(step)
            self._close(step)
        except BaseException:
            for buffer, old in before:
                buffer.copy_(old)
            raise
        finally:
            self._window = None

    @torch.no_grad()
    def _open(self, counts: Tensor, sums: Tensor | None = None) -> _Step:
        denominators = self._denominators(counts)
        if sums is not None and self.training:
            self._learn(TaskLosses(sums, counts), self.finite)
        unit = kept_for_backward(torch.cat([self.risk.unit(), torch.ones_like(self.auxiliary_weights)]))
        if sums is not None and not self.training:
            running = self._weighted(sums / denominators / unit)
        else:
            running = self.risk.running()
        return _Step(
            counts=counts,
            denominators=denominators,
            unit=unit,
            running=running,
            learnt=sums is not None,
            gramian=GramianEstimator(len(running), self.process_group),
            sums=torch.zeros_like(counts),
            seen_counts=torch.zeros_like(counts),
            finite=self.finite.clone() if sums is not None else torch.ones_like(self.finite),
        )

    def _risks(self, step: _Step, losses: TaskLosses, pooled: TaskLosses, shared: Shared | None) -> Tensor:
        risks = global_mean(losses, pooled, step.denominators, world_size(self.process_group)) / step.unit
        if self.weighting.needs_gramian and self.training:
            assert shared is not None
            step.gramian.add(self._weighted(risks), shared)
        return risks

    def _add(self, step: _Step, risks: Tensor, pooled: TaskLosses) -> Tensor:
        step.finite = step.finite & self.finite
        step.sums = step.sums + pooled.sums
        step.seen_counts = step.seen_counts + pooled.counts
        total = (step.weights * risks).sum()
        share = self._weighted(pooled.counts / torch.where(step.counts > 0, step.counts, 1))
        own_loss = self.weighting.own_loss(self._weighted(risks).detach(), share)
        if own_loss is not None:
            total = total + own_loss - own_loss.detach()
        return total if self.on_nonfinite == "raise" else torch.where(step.finite, total, 0)

    @torch.no_grad()
    def _observe(self, step: _Step) -> None:
        if self.weighting.needs_gramian and self.training:
            with undone_unless(step.finite, self.weighting, self.on_nonfinite == "skip"):
                self.weighting.observe(step.gramian.gramian())

    @torch.no_grad()
    def _close(self, step: _Step) -> None:
        pooled = TaskLosses(step.sums, step.counts)
        if self.training:
            if not step.learnt:
                self._learn(pooled, step.finite)
            running = step.running if step.learnt else self.risk.running()
            with undone_unless(step.finite, self.weighting, self.on_nonfinite == "skip"):
                self.weighting.update(running, self._weighted(step.counts))
            self.skipped.add_(~step.finite)
        self.finite.copy_(step.finite)
        self.weight_vector.copy_(step.weights)
        self.risk_vector.copy_(torch.where(step.counts > 0, step.sums / step.counts, torch.nan))

    @torch.no_grad()
    def _learn(self, pooled: TaskLosses, finite: Tensor) -> None:
        with undone_unless(finite, self.risk, self.on_nonfinite == "skip"):
            self.risk.update(TaskLosses(self._weighted(pooled.sums), self._weighted(pooled.counts)))

    @torch.no_grad()
    def _weights(self, step: _Step) -> Tensor:
        counts = self._weighted(step.counts)
        present = (counts > 0).float()
        weights = self.weighting.weights(step.running, counts)
        if not isinstance(weights, Tensor) or weights.shape != counts.shape:
            got = list(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
            name = type(self.weighting).__name__
            raise ValueError(f"Expected {name}.weights to return a tensor of shape {list(counts.shape)}, got {got}.")
        weights = weights * present
        if self.reduction != "paper":
            share = weights / weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
            share = self.min_weight * present + (1 - self.min_weight * present.sum()) * share
            weights = share * present.sum() if self.reduction == "sum" else share
        return kept_for_backward(torch.cat([weights, self.auxiliary_weights]))

    @torch.no_grad()
    def _check(self, sums: Tensor) -> None:
        nonfinite = ~sums.isfinite()
        self.nonfinite_counts.add_(nonfinite)
        self.finite.copy_(~nonfinite.any())
        if sums.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_finite()

    def _check_counts(self, step: _Step) -> None:
        if step.counts.device.type == "cpu" and not torch.equal(step.seen_counts, step.counts):
            raise ValueError(
                f"Expected losses with the counts {step.counts.tolist()} of the tasks {list(self.tasks)} in this "
                f"accumulation window, got {step.seen_counts.tolist()}."
            )

    def _weighted(self, values: Tensor) -> Tensor:
        return values[: len(self.weighted_tasks)]

    def _denominators(self, counts: Tensor) -> Tensor:
        auxiliary = counts[len(self.weighted_tasks) :]
        return torch.cat([self.risk.denominators(self._weighted(counts)), torch.where(auxiliary > 0, auxiliary, 1)])

    def _task_losses(self, losses: TaskLosses | Mapping[str, Tensor | None]) -> TaskLosses:
        if isinstance(losses, Mapping):
            losses = TaskLosses.from_means(losses, self.tasks, self.weight_vector.device)
        elif not isinstance(losses, TaskLosses):
            raise ValueError(
                f"Expected TaskLosses or a mapping of task name to mean loss, got {type(losses).__name__}."
            )
        shape = (len(self.tasks),)
        if losses.sums.shape != shape or losses.counts.shape != shape:
            raise ValueError(
                f"Expected sums and counts of shape {list(shape)} for the tasks {list(self.tasks)}, got "
                f"{list(losses.sums.shape)} and {list(losses.counts.shape)}."
            )
        if losses.sums.device != self.weight_vector.device:
            raise ValueError(
                f"Expected losses on {self.weight_vector.device}, where the criterion is, got {losses.sums.device}. "
                f"Call criterion.to({str(losses.sums.device)!r})."
            )
        return losses

    def get_extra_state(self) -> Tensor:
        """The names that the entries of the state belong to, as bytes, since a state holds tensors."""
        return torch.tensor(list("\n".join(self.tasks).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Check that a state is of the same tasks.

        Raises:
            ValueError: If it is not.
        """
        tasks = bytes(state.tolist()).decode().split("\n")
        if tasks != list(self.tasks):
            raise ValueError(f"Expected the state of the tasks {list(self.tasks)}, got that of {tasks}.")

    def check_finite(self) -> None:
        """Raise if a loss was not finite since the last call, unless such steps are skipped. Waits for the device.

        Raises:
            NonFiniteLossError: Names the tasks.
        """
        if self.on_nonfinite == "skip":
            return
        counts = self.nonfinite_counts.tolist()
        if any(counts):
            self.nonfinite_counts.zero_()
            tasks = [task for task, count in zip(self.tasks, counts, strict=True) if count]
            raise NonFiniteLossError(
                f"Expected finite losses, got NaN or infinity for {tasks}. "
                "Look at the inputs and the learning rate of these tasks, or leave such steps out with "
                "on_nonfinite='skip'."
            )

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights applied in the last step, by task. NaN before the first."""
        return dict(zip(self.tasks, self.weight_vector.clone().unbind(), strict=True))

    @property
    def risks(self) -> dict[str, Tensor]:
        """Mean losses of the last step over all ranks, in their own units, by task. NaN where there was none."""
        return dict(zip(self.tasks, self.risk_vector.clone().unbind(), strict=True))

    @property
    def entropy(self) -> Tensor:
        """Entropy of the last step's weights over the weighted tasks, in nats."""
        weights = self._weighted(self.weight_vector)
        share = weights / weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
        entropy: Tensor = torch.special.entr(share).sum()
        return entropy

    @property
    def effective_tasks(self) -> Tensor:
        """Effective number of tasks: the exponential of the entropy."""
        return self.entropy.exp()

    @property
    def worst_index(self) -> Tensor:
        """Index of the weighted task with the largest risk in the last step, in the units of ``risk``, shape []."""
        risks = self._weighted(self.risk_vector) / self.risk.comparable_unit()
        return risks.nan_to_num(nan=-torch.inf).argmax()

    @property
    def worst_task(self) -> str:
        """Name of the weighted task with the largest risk in the last step. Waits for the device."""
        return self.weighted_tasks[int(self.worst_index)]
