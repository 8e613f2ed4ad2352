import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_softmax


class RandomWeights(Weighting):
    r"""Draws new weights at every step: the baseline that elaborate strategies should beat.

    .. math:: w = \operatorname{softmax}(\xi), \qquad \xi \sim \mathcal N(0, I_T)

    The draws come from a table made from the seed, so that all ranks and a resumed run draw the same. They repeat after
    ``period`` steps.

    Args:
        num_tasks: Number of tasks T.
        seed: Seed of the draws.

    References:
        Lin et al., Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning, TMLR 2022.
    """

    period = 1 << 14

    draws: Tensor
    step: Tensor

    def __init__(self, num_tasks: int, seed: int = 0) -> None:
        super().__init__(num_tasks)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("draws", torch.randn(self.period, num_tasks, generator=generator), persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Softmax of this step's draw."""
        return masked_softmax(self.draws.index_select(0, (self.step % self.period).reshape(1))[0], counts)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Go on to the next draw."""
        self.step.add_(1)
