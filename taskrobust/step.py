"""One step of the optimizer: the batches whose losses are weighted together."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from taskrobust._state import opaque_to_compile, restore_buffers_unless
from taskrobust.faults import Faults, OnNonfinite
from taskrobust.outputs import Shared, TaskLosses
from taskrobust.ranks import Ranks
from taskrobust.risk import RiskEstimator
from taskrobust.weighting import Weighting
from taskrobust.weighting._gramian import GramianEstimator


class Criterion(Protocol):
    """The attributes of ``MultiTaskLoss`` that a step uses."""

    tasks: tuple[str, ...]
    weighted_tasks: tuple[str, ...]
    weighting: Weighting
    risk: RiskEstimator
    weight_sum: float | Literal["tasks", "paper"]
    min_weight: float
    on_nonfinite: OnNonfinite
    ranks: Ranks
    faults: Faults
    skipped: Tensor

    def auxiliary_weights(self, device: torch.device) -> Tensor:
        """Weights of the auxiliary tasks."""


@dataclass(frozen=True, eq=False)
class StepReport:
    """The values of a step of training, on the device and detached.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], "uniform")
        >>> _ = criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        >>> criterion.last.worst_task, round(criterion.last.effective_tasks.item(), 2)
        ('noun', 2.0)

    Args:
        tasks: Names of the tasks, auxiliary ones last.
        weight_vector: Weights that were applied, shape [T].
        risk_vector: Mean losses over all ranks, in their own units, shape [T]. NaN for an absent task.
        compared_risks: Risks of the weighted tasks as they are compared: minus the reference, in their unit.
        total: Weighted total over all ranks and micro-batches, shape [].
        finite: Whether all losses were finite, bool, shape [].
    """

    tasks: tuple[str, ...]
    weight_vector: Tensor
    risk_vector: Tensor
    compared_risks: Tensor
    total: Tensor
    finite: Tensor

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights that were applied, by task."""
        return dict(zip(self.tasks, self.weight_vector.unbind(), strict=True))

    @property
    def risks(self) -> dict[str, Tensor]:
        """Mean losses over all ranks, in their own units, by task. NaN for an absent task."""
        return dict(zip(self.tasks, self.risk_vector.unbind(), strict=True))

    @property
    def excess(self) -> dict[str, Tensor]:
        """Risks of the weighted tasks as they are compared: minus the reference, in their unit."""
        return dict(zip(self.tasks, self.compared_risks.unbind(), strict=False))

    @property
    def entropy(self) -> Tensor:
        """Entropy of the weights of the weighted tasks, in nats."""
        weights = self.weight_vector[: len(self.compared_risks)]
        size = weights.abs()
        share = size / size.sum().clamp(min=torch.finfo(torch.float32).tiny)
        entropy: Tensor = torch.special.entr(share).sum()
        return entropy

    @property
    def effective_tasks(self) -> Tensor:
        """Effective number of tasks: the exponential of the entropy."""
        return self.entropy.exp()

    @property
    def worst_index(self) -> Tensor:
        """Index of the weighted task with the largest compared risk, shape []."""
        return self.compared_risks.nan_to_num(nan=-torch.inf).argmax()

    @property
    def worst_task(self) -> str:
        """The weighted task with the largest compared risk. Waits for the device."""
        return self.tasks[int(self.worst_index)]


class Step:
    """A step that is open for the losses of its batches.

    Args:
        criterion: Whose step it is.
        counts: Element counts of the whole step over all ranks, shape [T].
        losses: Losses of the whole step over all ranks. If given, the weights are computed from the risks of this
            step, otherwise from the running risks before it.
        window: Whether the losses come in several batches.
        multiplier: Factor of the totals, for a framework that divides them.
        learns: Whether it is a step of training. Otherwise counts and sums are this rank's, and nothing is changed.
    """

    def __init__(
        self,
        criterion: Criterion,
        counts: Tensor,
        losses: TaskLosses | None = None,
        *,
        window: bool = False,
        multiplier: float = 1.0,
        learns: bool = True,
    ) -> None:
        self.criterion = criterion
        self.counts = counts
        self.losses = losses
        self.window = window
        self.multiplier = multiplier
        self.learns = learns
        self.ranks = criterion.ranks.size if learns else 1
        self.number = len(criterion.weighted_tasks)
        self.gramian: GramianEstimator | None = None
        if learns and criterion.weighting.needs_gramian:
            self.gramian = GramianEstimator(self.number, criterion.ranks)
        self.denominators: Tensor
        self.unit: Tensor
        self.running: Tensor
        self.finite: Tensor
        self.weights: Tensor | None
        self.seen: TaskLosses | None = None  # of the batches of a window
        with torch.no_grad():  # a decorator is more than torch.compile understands here
            self._open()

    def add(self, losses: TaskLosses, shared: Shared | None) -> Tensor:
        r"""The differentiable total of one batch of this rank.

        Its gradient is the number of ranks R times this rank's share of the global one, so that the mean over ranks of
        DDP and FSDP is the global gradient, and no differentiable collective is needed:

        .. math:: r_t = \frac{\sum_r S_{t,r}}{N_t} + (S_t - \operatorname{detach}(S_t)) \frac{R}{N_t}

        The value of a step of one batch is global as well. In a window it is R times this rank's share.
        """
        weighting, own = self.criterion.weighting, losses.detach()
        if self.window:
            self.seen = own if self.seen is None else self.seen + own
            self.finite = self.finite & own.sums.isfinite().all()
            if own.reference is not None:
                self.finite = self.finite & own.reference.isfinite().all()
            if self.ranks == 1:
                self.criterion.faults.record_losses(own, self.number)
            sums, counts = own.sums * self.ranks, own.counts * self.ranks
        else:
            assert self.losses is not None
            sums, counts = self.losses.sums, self.counts
        local = losses.sums.float()
        risks = (sums + (local - local.detach()) * self.ranks) / self.denominators / self.unit
        weighted_risks = risks[: self.number]
        if self.gramian is not None:
            assert shared is not None
            self.gramian.add(weighted_risks, shared)
        if self.weights is None:
            with torch.no_grad():
                self._observe()
                self.weights = self._decide()
        total = (self.weights * risks).sum()
        share = counts / self.counts.clamp(min=torch.finfo(torch.float32).tiny)
        own_loss = weighting.own_loss(weighted_risks.detach(), share[: self.number])
        if own_loss is not None:
            total = total + own_loss - own_loss.detach()
        if self.multiplier != 1:
            total = self.multiplier * total
        return torch.where(self.finite, total, 0) if self._skips else total

    def close(self) -> StepReport:
        """Learn from the step.

        Raises:
            ValueError: If the batches of a window do not add up to the counts that it was opened with.
            NonFiniteLossError: If a loss of a window was not finite, on all ranks together.
        """
        criterion, running = self.criterion, self.running
        with torch.no_grad():
            losses = self._close_window() if self.window else self.losses
            assert losses is not None
            assert self.weights is not None
            if self.losses is None:
                self._learn(losses)
                running = criterion.risk.running()
            with restore_buffers_unless(self.finite, criterion.weighting, self._skips):
                criterion.weighting.update(running, self.counts[: self.number])
            criterion.skipped.add_(~self.finite)
            risks = torch.where(self.counts > 0, losses.sums / self.counts, torch.nan)
            compared = criterion.risk.compared(losses.first(self.number))
            total = (self.weights * losses.sums / self.denominators / self.unit).sum()
            return StepReport(criterion.tasks, self.weights, risks, compared, total, self.finite)

    def _close_window(self) -> TaskLosses:
        """Losses of all batches over all ranks."""
        nothing = torch.zeros_like(self.counts)
        pooled = self.criterion.ranks.pool(TaskLosses(nothing, nothing) if self.seen is None else self.seen)
        # Sums of float32 counts depend on their order in the last digits.
        if pooled.counts.device.type == "cpu" and not torch.allclose(pooled.counts, self.counts, rtol=1e-5, atol=0):
            raise ValueError(
                f"Expected losses with the counts {self.counts.tolist()} of the tasks {list(self.criterion.tasks)} in "
                f"this accumulation window, got {pooled.counts.tolist()}."
            )
        if self.ranks > 1:
            self.finite = self.criterion.faults.record_losses(pooled, self.number)
        self._observe()
        self._average_own_gradients()
        return pooled

    @property
    def _skips(self) -> bool:
        return self.criterion.on_nonfinite == "skip"

    def _open(self) -> None:
        criterion, risk, number = self.criterion, self.criterion.risk, self.number
        counts, losses = self.counts, self.losses
        self.finite = torch.ones((), dtype=torch.bool, device=counts.device)
        if self.learns and losses is not None:
            self.finite = criterion.faults.record_losses(losses, number)
            self._learn(losses)
        elif self.learns:
            self.finite = criterion.faults.record_counts(counts)
        self.denominators, unit = risk.denominators(counts[:number]), risk.unit()
        if number < len(counts):
            auxiliary = counts[number:]
            self.denominators = torch.cat([self.denominators, torch.where(auxiliary > 0, auxiliary, 1)])
            unit = torch.cat([unit, torch.ones_like(auxiliary)])
        self.unit = opaque_to_compile(unit)
        if self.learns:
            self.running = risk.running()
        else:
            assert losses is not None
            self.running = risk.in_units(losses.sums[:number], counts[:number])
        self.weights = self._decide() if self.window else None

    def _learn(self, losses: TaskLosses) -> None:
        with restore_buffers_unless(self.finite, self.criterion.risk, self._skips):
            self.criterion.risk.update(losses.first(self.number))

    def _observe(self) -> None:
        weighting = self.criterion.weighting
        if self.gramian is not None:
            with restore_buffers_unless(self.finite, weighting, self._skips):
                weighting.observe(self.gramian.gramian())

    def _decide(self) -> Tensor:
        """The weights to apply, of all tasks."""
        criterion, counts = self.criterion, self.counts[: self.number]
        weights = criterion.weighting.weights(self.running, counts)
        name = type(criterion.weighting).__name__
        if not isinstance(weights, Tensor) or weights.shape != counts.shape:
            got = list(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
            raise ValueError(f"Expected {name}.weights to return a tensor of shape {list(counts.shape)}, got {got}.")
        present = counts > 0
        weights = torch.where(present, weights, 0)
        if self.learns:
            criterion.faults.record_weights(weights, self.finite)
        if criterion.weight_sum != "paper":
            size = weights.abs() if criterion.weighting.signed else weights
            weights = weights / size.sum().clamp(min=torch.finfo(torch.float32).tiny)
            if criterion.min_weight > 0:
                weights = criterion.min_weight * present + (1 - criterion.min_weight * present.sum()) * weights
            if criterion.weight_sum != 1:
                weights = weights * (present.sum() if criterion.weight_sum == "tasks" else criterion.weight_sum)
        if self.number < len(self.counts):
            weights = torch.cat([weights, criterion.auxiliary_weights(weights.device)])
        return opaque_to_compile(weights)

    def _average_own_gradients(self) -> None:
        """In a window, a rank's totals train the strategy's parameters by this rank's losses only."""
        if self.ranks == 1:
            return
        for parameter in self.criterion.weighting.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.criterion.ranks.sum(gradient) / self.ranks
