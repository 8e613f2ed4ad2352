from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust._random import normal, random_bits
from taskrobust.weighting.base import Weighting, masked_softmax


class RandomWeights(Weighting):
    r"""Draws random weights at each step, a baseline for other strategies.

    .. math:: w = \operatorname{softmax}(\xi), \qquad \xi \sim \mathcal N(0, I_T)

    Draws are hashes of seed, step and task, so that they are the same on all ranks and in resumed runs.

    Example:
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], RandomWeights(seed=1))
        >>> _ = criterion({"noun": torch.tensor(1.0), "verb": torch.tensor(1.0)})
        >>> sum(criterion.weights.values())
        tensor(1.)

    Args:
        seed: Seed of the draws.

    References:
        Lin et al., Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning, TMLR 2022.
    """

    step: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return a step count of 0."""
        return {"step": torch.zeros((), dtype=torch.int64)}

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the softmax of this step's draw."""
        key = random_bits(torch.full_like(self.step, self.seed), self.step)
        draws = normal(random_bits(key[None], torch.arange(self.num_tasks, device=key.device)))
        return masked_softmax(draws.float(), counts)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Increment the step."""
        self.step.add_(1)
