from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_softmax


class GroupDRO(Weighting):
    r"""Online group distributionally robust optimization: exponentiated gradient ascent on the weights.

    .. math:: q_t \leftarrow \frac{q_t \exp(\eta r_t)}{\sum_j q_j \exp(\eta r_j)}, \qquad L = \sum_t q_t r_t

    The state is :math:`\log q`, so that large risks do not overflow. It does not change for absent tasks.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], GroupDRO(step_size=0.1))
        >>> for _ in range(10):
        ...     _ = criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.73, 'verb': 0.27}

    Args:
        step_size: Step size :math:`\eta`, in inverse units of the risks.

    Raises:
        ValueError: If ``step_size`` is negative.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, Algorithm 1.
    """

    log_weights: Tensor

    def __init__(self, step_size: float = 0.01) -> None:
        super().__init__()
        if not step_size >= 0:
            raise ValueError(f"Expected step_size >= 0, got {step_size}.")
        self.step_size = step_size

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return equal weights."""
        return {"log_weights": torch.zeros(self.num_tasks).log_softmax(0)}

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the weights after the ascent step on these risks."""
        return masked_softmax(self._ascended(risks, counts), counts)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Apply the ascent step."""
        self.log_weights.copy_(self._ascended(risks, counts).log_softmax(0))

    def _ascended(self, risks: Tensor, counts: Tensor) -> Tensor:
        return self.log_weights + self.step_size * torch.where(counts > 0, risks, 0)
