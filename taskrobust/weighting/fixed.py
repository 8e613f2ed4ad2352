import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from torch import Tensor

from taskrobust._state import FixedTensor
from taskrobust.weighting.base import Weighting


class Fixed(Weighting):
    r"""Weights the tasks by constants.

    .. math:: w_t = c_t

    Example:
        >>> import torch
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], Fixed({"verb": 1.0, "noun": 3.0}))
        >>> criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        tensor(1.7500)

    Args:
        values: Nonnegative constants :math:`c_t`, one per task, in order or by name, or the folder of a run, whose
            weights are averaged over its steps, as for the second run of ``DoReMi``.

    Raises:
        ValueError: In ``setup``, if a value is negative or not finite, no value is positive, a task has none, or there
            is no run in the folder.
    """

    def __init__(self, values: Sequence[float] | Mapping[str, float] | Path) -> None:
        super().__init__()
        self.values = values

    def setup(self, tasks: Sequence[str]) -> Self:
        """Look up the value of each task."""
        super().setup(tasks)
        values = _mean_weights(self.values) if isinstance(self.values, Path) else self.values
        if isinstance(values, Mapping):
            missing = [task for task in tasks if task not in values]
            if missing:
                raise ValueError(f"Expected a weight of each task, got none of {missing} in {self.values}.")
            self._values = FixedTensor([values[task] for task in tasks])
        else:
            self._values = self.per_task("values")
        numbers = self._values.values
        if not all(0 <= value < math.inf for value in numbers) or not any(numbers):
            raise ValueError(f"Expected finite weights, none negative and one positive, got {list(numbers)}.")
        return self

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Return the constants."""
        return self._values.on(risks.device)


def _mean_weights(run: Path) -> Mapping[str, float]:
    """The weights of a run by task, averaged over its steps."""
    file = run / "metrics.jsonl"
    sums: dict[str, float] = {}
    last = 0
    try:
        for text in file.read_text().splitlines():
            line = json.loads(text)
            if line["split"] == "train":
                steps, last = line["step"] - last, line["step"]
                for task, weight in line["weights"].items():
                    sums[task] = sums.get(task, 0.0) + steps * weight
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"Expected the folder of a run with the weights of its steps, {run} is none: {error}"
        ) from error
    if not sums:
        raise ValueError(f"Expected the folder of a run that logged weights, got {run} with an empty metrics.jsonl.")
    return {task: total / last for task, total in sums.items()}
