from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from taskrobust import evaluation
from taskrobust._inputs import Losses
from taskrobust.loss import MultiTaskLoss
from taskrobust.outputs import Outputs


class Scores(Protocol):
    """Accumulates scores of predictions, such as accuracy, over one evaluation."""

    def update(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> None:
        """Add the predictions for a batch. No gradient."""

    def compute(self) -> dict[str, float]:
        """The scores by name, over the batches of all ranks. Called by all ranks, also by one that had no batch.

        Names with a slash are details, which are logged and not printed.
        """


@dataclass(frozen=True)
class Evaluation(evaluation.Evaluation):
    """Risks and scores on held-out data.

    Args:
        risks: Mean loss of each task that had an element.
        mean: Mean over the weighted tasks of the risks that the criterion compares: minus a reference that does not
            change, in their units.
        worst: Largest of these risks; infinite if one is not a number.
        worst_task: That task.
        scores: Scores of the predictions, by name.
    """

    scores: dict[str, float] = field(default_factory=dict)


def evaluate(
    model: nn.Module,
    criterion: MultiTaskLoss,
    batches: Iterable[tuple[Mapping[str, Tensor], bool]],
    autocast: Any,
    device: Any,
    scores: Scores | None = None,
    reference: nn.Module | None = None,
) -> Evaluation:
    """Like ``taskrobust.evaluate``, with scores.

    Args:
        model: Returns the losses of a batch, in ``Outputs`` where there are scores.
        criterion: Names the tasks and their units.
        batches: This rank's batches, as keyword arguments of the model, and whether each counts. Batches that do not
            count let a rank with fewer samples join the forward passes of the others, as a sharded model requires.
        autocast: Makes the autocast context of the model.
        device: Device of the model.
        scores: Accumulates scores of the predictions.
        reference: The frozen model of ``ModelReference``.

    Raises:
        ValueError: If no weighted task had an element.
    """

    def losses() -> Iterator[tuple[Losses, Losses]]:
        for batch, counts_in in batches:
            on_device = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            with autocast():
                outputs = model(**on_device)
                frozen = outputs if reference is None else reference(**on_device)
            if counts_in:
                if scores is not None:
                    scores.update(outputs, on_device)
                yield outputs, frozen

    training = model.training
    model.eval()
    of_reference = None if reference is None else lambda outputs, frozen: frozen
    risks = evaluation.evaluate(lambda outputs, frozen: outputs, criterion, losses(), reference=of_reference)
    model.train(training)
    with torch.no_grad():
        return Evaluation(**vars(risks), scores={} if scores is None else scores.compute())
