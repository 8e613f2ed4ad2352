import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_softmax


class GroupDRO(Weighting):
    r"""Online group distributionally robust optimisation: exponentiated gradient ascent on the weights.

    .. math:: q_t \leftarrow \frac{q_t \exp(\eta r_t)}{\sum_j q_j \exp(\eta r_j)}, \qquad L = \sum_t q_t r_t

    :math:`\log q` is kept, so that large risks do not overflow. An absent task keeps its :math:`\log q`.

    Args:
        num_tasks: Number of tasks T.
        step_size: :math:`\eta`, in one over the unit of the risks.

    Raises:
        ValueError: If ``step_size`` is negative.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, Algorithm 1.
    """

    log_weights: Tensor

    def __init__(self, num_tasks: int, step_size: float = 0.01) -> None:
        super().__init__(num_tasks)
        if step_size < 0:
            raise ValueError(f"Expected step_size >= 0, got {step_size}.")
        self.step_size = step_size
        self.register_buffer("log_weights", torch.zeros(num_tasks).log_softmax(0))

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """The weights after the ascent step on these risks."""
        return masked_softmax(self._ascended(risks, counts), counts)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Keep the ascent step."""
        self.log_weights.copy_(self._ascended(risks, counts).log_softmax(0))

    def _ascended(self, risks: Tensor, counts: Tensor) -> Tensor:
        return self.log_weights + self.step_size * torch.where(counts > 0, risks, 0)
