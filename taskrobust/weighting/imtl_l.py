from collections.abc import Mapping

import torch
from torch import Tensor, nn

from taskrobust.weighting.base import Weighting


class IMTLL(Weighting):
    r"""The loss balance of impartial multi-task learning: learns scales at which all weighted risks are equal.

    .. math:: L = \sum_t e^{s_t} r_t - s_t, \qquad w_t = e^{s_t}

    The gradient with respect to :math:`s_t` is 0 where :math:`e^{s_t} r_t = 1`, so tasks are weighted by the inverse of
    their risks: smaller risks have larger weights, in contrast to minimax. The scales are parameters: pass
    ``criterion.parameters()`` to the optimizer, without weight decay. As for ``Uncertainty``, the value of the total is
    that of the weighted risks, and its gradient with respect to :math:`s_t` that of the formula.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], IMTLL())
        >>> criterion({"noun": torch.tensor(4.0), "verb": torch.tensor(0.5)}).backward()
        >>> criterion.weighting.scale.grad  # the weighted risk minus 1
        tensor([ 3.0000, -0.5000])

    References:
        Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, section 3.2.
    """

    scale: nn.Parameter

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return scales of 0."""
        return {"scale": nn.Parameter(torch.zeros(self.num_tasks))}

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the exponentials of the scales."""
        return self.scale.detach().exp()

    def own_loss(self, risks: Tensor, share: Tensor) -> Tensor:
        """Compute the paper's total as a function of the scales."""
        return (self.scale.exp() * risks - share * self.scale).sum()
