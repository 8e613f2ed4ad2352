"""Reference risks: what each task could reach, so that weights can follow what is left to learn."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from taskrobust._state import FixedTensor, TaskModule
from taskrobust.outputs import TaskLosses


class Reference(TaskModule, ABC):
    """A risk for each task that its excess risk is measured from. Part of a ``RiskEstimator``.

    A subclass implements :meth:`risks`. If it has state, :meth:`initial_state` returns it and :meth:`update` changes it
    in place, without branching on values, as in a ``Weighting``.

    Example:
        >>> from taskrobust import MultiTaskLoss, RiskEstimator
        >>> class Half(Reference):
        ...     def initial_state(self):
        ...         return {"first": torch.zeros(self.num_tasks)}
        ...     def update(self, pooled, decay):
        ...         self.first.copy_(torch.where(self.first > 0, self.first, pooled.sums / pooled.counts))
        ...     def risks(self, device):
        ...         return self.first / 2
        >>> criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(reference=Half()))
        >>> _ = criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        >>> criterion.risk.running()
        tensor([1.0000, 0.5000])
    """

    needs_model: ClassVar[bool] = False
    """Whether each step has to pass the losses of a reference model: ``criterion(losses, reference=...)``."""

    constant: ClassVar[bool] = False
    """Whether the reference never changes, so that excess risks can be compared over time."""

    @abstractmethod
    def risks(self, device: torch.device) -> Tensor:
        """Return the reference risks in the units of the losses, shape [T], on the device of the state."""

    def update(self, pooled: TaskLosses, decay: Tensor) -> None:
        """Learn from the losses of a step, pooled over ranks and micro-batches.

        Args:
            pooled: Losses of the weighted tasks.
            decay: Factor of the sums of earlier steps in the running risks, shape [T]. 1 for absent tasks.
        """


class FixedReference(Reference):
    """Constant reference risks: numbers, or a file of them.

    Use the risks of models that were trained on one task each, the best known risks, or an entropy. A reference from
    a model that was trained with some weights leads the weights of excess minimax back to those.

    Example:
        >>> from taskrobust import MultiTaskLoss, RiskEstimator
        >>> reference = FixedReference({"noun": 5.0, "verb": 0.5})
        >>> criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(reference=reference))
        >>> _ = criterion({"noun": torch.tensor(5.1), "verb": torch.tensor(2.0)})
        >>> criterion.last.worst_task
        'verb'

    Args:
        values: One number per task, in order or by name, or the path of a JSON file that holds them by name, such as
            ``taskrobust reference`` writes.

    Raises:
        ValueError: In ``setup``, if a value is not finite, a task has none, or the file is of another kind.
    """

    constant = True

    def __init__(self, values: Sequence[float] | Mapping[str, float] | Path) -> None:
        super().__init__()
        self.values = values

    def setup(self, tasks: Sequence[str]) -> Self:
        """Look up the value of each task."""
        super().setup(tasks)
        values = _read(self.values) if isinstance(self.values, Path) else self.values
        if isinstance(values, Mapping):
            missing = [task for task in tasks if task not in values]
            if missing:
                raise ValueError(f"Expected a reference risk of each task, got none of {missing} in {self.values}.")
            self._risks = FixedTensor([values[task] for task in tasks])
        else:
            self._risks = self.per_task("values")
        if not all(map(math.isfinite, self._risks.values)):
            raise ValueError(f"Expected finite reference risks, got {self._risks.values} for {list(tasks)}.")
        return self

    def risks(self, device: torch.device) -> Tensor:
        """Return the constants."""
        return self._risks.on(device)


class ModelReference(Reference):
    r"""The running risk of a frozen model on the same elements as the model in training.

    .. math:: \rho_t = \frac{\sum_k \beta^k S^{\text{ref}}_{t,k}}{\sum_k \beta^k N_{t,k}}

    Since both models see the same elements, easy and hard batches cancel in the difference. It costs one forward pass
    of the reference model per step, and no communication of its own.

    Example:
        >>> from taskrobust import MultiTaskLoss, RiskEstimator
        >>> criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(reference=ModelReference()))
        >>> reference = {"noun": torch.tensor(5.0), "verb": torch.tensor(0.5)}  # of the frozen model
        >>> _ = criterion({"noun": torch.tensor(5.1), "verb": torch.tensor(2.0)}, reference=reference)
        >>> criterion.last.worst_task
        'verb'
    """

    sums: Tensor
    counts: Tensor

    needs_model = True

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return empty sums."""
        return {name: torch.zeros(self.num_tasks) for name in ("sums", "counts")}

    def update(self, pooled: TaskLosses, decay: Tensor) -> None:
        """Add the reference model's losses."""
        assert pooled.reference is not None
        self.sums.mul_(decay).add_(pooled.reference)
        self.counts.mul_(decay).add_(pooled.counts)

    def risks(self, device: torch.device) -> Tensor:
        """Return the running risks of the reference model."""
        return self.sums / torch.where(self.counts > 0, self.counts, 1)


class PowerLawReference(Reference):
    r"""The limit of the task's own learning curve, where no reference is at hand.

    .. math:: r_t(n) \approx \varepsilon_t + b_t n^{-a_t}

    is fitted to the mean risks in intervals of the elements :math:`n` that were seen, each 12 percent longer than the
    one before, by weighted least squares with :math:`\varepsilon_t, b_t \geq 0`. The reference is
    :math:`\varepsilon_t (1 - e / e_0)`, where e is the squared error of the fit and :math:`e_0` that of the best one
    with :math:`\varepsilon_t = 0`, and at most 0.98 times the smallest risk seen. Without a bend in the curve, it is
    therefore 0, as it is in the first 8 intervals.

    The limit of a curve is not identified early in training, and noisy risks make it too small. A falling learning rate
    bends the curve as well: set ``steps`` to where it starts to fall.

    Example:
        >>> from taskrobust import MultiTaskLoss, RiskEstimator
        >>> criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(reference=PowerLawReference()))
        >>> for step in range(1, 1001):
        ...     _ = criterion({"noun": torch.tensor(4 + step**-0.5), "verb": torch.tensor(2 * step**-0.5)})
        >>> [round(limit, 1) for limit in criterion.risk.reference.risks(torch.device("cpu")).tolist()]
        [4.0, 0.0]

    Args:
        steps: Number of steps after which the reference stays as it is. None keeps fitting.

    References:
        Jiang et al., Adaptive Data Optimization: Dynamic Sample Selection with Scaling Laws, ICLR 2025, fits such
        curves to mix data domains.
    """

    limits: Tensor
    risks_seen: Tensor
    exposures: Tensor
    elements: Tensor
    interval_sums: Tensor
    interval_counts: Tensor
    exposure: Tensor
    step: Tensor

    intervals: ClassVar[int] = 64
    growth: ClassVar[float] = 1.12
    fewest_intervals: ClassVar[int] = 8
    exponents: ClassVar[Sequence[float]] = [0.05 + 0.95 * k / 31 for k in range(32)]

    def __init__(self, steps: int | None = None) -> None:
        super().__init__()
        if steps is not None and steps < 1:
            raise ValueError(f"Expected steps >= 1 or None, got {steps}.")
        self.steps = steps

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return limits of 0 and no intervals."""
        per_task = ("limits", "interval_sums", "interval_counts", "exposure")
        per_interval = ("risks_seen", "exposures", "elements")
        return {
            **{name: torch.zeros(self.num_tasks) for name in per_task},
            **{name: torch.zeros(self.intervals, self.num_tasks) for name in per_interval},
            "step": torch.zeros((), dtype=torch.int64),
        }

    def setup(self, tasks: Sequence[str]) -> Self:
        """Make the state for these tasks."""
        super().setup(tasks)
        self._exponents = FixedTensor(self.exponents)
        return self

    def update(self, pooled: TaskLosses, decay: Tensor) -> None:
        """Add the losses to the interval, and fit the curve again."""
        self.step.add_(1)
        self.interval_sums.add_(pooled.sums)
        self.interval_counts.add_(pooled.counts)
        end = self.exposure + self.interval_counts
        complete = (pooled.counts > 0) & (end >= self.growth * self.exposure)
        mean = self.interval_sums / torch.where(complete, self.interval_counts, 1)
        for history, value in (
            (self.risks_seen, mean),
            (self.exposures, (self.exposure + end) / 2),
            (self.elements, self.interval_counts),
        ):
            history.copy_(torch.where(complete, torch.cat([history[1:], value[None]]), history))
        self.exposure.copy_(torch.where(complete, end, self.exposure))
        self.interval_sums.mul_(~complete)
        self.interval_counts.mul_(~complete)
        fits = complete if self.steps is None else complete & (self.step <= self.steps)
        self.limits.copy_(torch.where(fits, self._fit(), self.limits))

    def risks(self, device: torch.device) -> Tensor:
        """Return the limits of the curves."""
        return self.limits

    def _fit(self) -> Tensor:
        """The limits of the curves through all intervals but the oldest eighth, shape [T]."""
        known = (self.elements > 0).sum(0)
        position = torch.arange(self.intervals, device=known.device)[:, None]
        used = position >= self.intervals - known + known // 8
        weights = torch.where(used, self.elements, 0)
        weights = weights / weights.sum(0).clamp(min=1)
        risks, latest = self.risks_seen, self.exposures[-1]
        age = torch.where(used, (latest / self.exposures).log(), 0)
        powers = (self._exponents.on(age.device)[:, None, None] * age).exp()  # of n / n_latest, [exponents, K, T]

        def mean(values: Tensor) -> Tensor:
            return (weights * values).sum(-2)

        mean_power, mean_risk = mean(powers), mean(risks)
        from_power, from_risk = powers - mean_power[:, None], risks - mean_risk
        tiny = torch.finfo(torch.float32).tiny
        slope = (mean(from_power * from_risk) / mean(from_power.square()).clamp(min=tiny)).clamp(min=0)
        limit = mean_risk - slope * mean_power
        steepest = mean(powers * risks) / mean(powers.square()).clamp(min=tiny)  # of a curve with the limit 0
        error_without = mean((risks - steepest[:, None] * powers).square())
        error = torch.where(limit > 0, mean((from_risk - slope[:, None] * from_power).square()), error_without)
        best = error.argmin(0, keepdim=True)
        gain = 1 - error.gather(0, best)[0] / error_without.amin(0).clamp(min=tiny)
        smallest = torch.where(used, risks, math.inf).amin(0)
        limit = torch.minimum(limit.gather(0, best)[0].clamp(min=0) * gain, 0.98 * smallest)
        return torch.where(known >= self.fewest_intervals, limit, 0)


def _read(path: Path) -> Mapping[str, float]:
    try:
        content = json.loads(path.read_text())
        return {str(task): float(risk) for task, risk in content["risks"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f'Expected a JSON file {{"risks": {{TASK: RISK}}}} of `taskrobust reference`, {path} is none ({error}).'
        ) from error
