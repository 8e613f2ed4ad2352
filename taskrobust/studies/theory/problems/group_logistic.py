import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from taskrobust.studies.theory.problems.base import MinimaxProblem
from taskrobust.studies.theory.problems.exact import epigraph_solution


class GroupLogistic(MinimaxProblem):
    r"""One logistic regression for groups whose labels follow different rules: every group is a task.

    .. math:: f_t(\theta) = \frac1n \sum_i \log(1 + \exp(-y_{ti} \langle x_{ti}, \theta \rangle))
        + \frac{\mu}{2} \|\theta\|^2

    Args:
        num_tasks: Number of groups T.
        dimension: Number of parameters d.
        samples: Number of samples n of a group.
        ridge: :math:`\mu`, which makes the optimum unique.
        seed: Seed of the samples. The first parameters are zero.
    """

    def __init__(
        self, num_tasks: int = 5, dimension: int = 10, samples: int = 50, ridge: float = 0.01, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(num_tasks, samples, dimension, generator=generator, dtype=torch.float64)
        common = torch.randn(dimension, generator=generator, dtype=torch.float64)
        rules = common + torch.randn(num_tasks, dimension, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_tasks, samples, generator=generator, dtype=torch.float64)
        labels = (torch.einsum("tnd,td->tn", features, rules) + noise).sign()
        self.ridge = ridge
        self.signed_features = features * labels[..., None]
        start = torch.zeros(dimension, dtype=torch.float64)
        super().__init__(start, epigraph_solution(self.risks, start))

    @property
    def smoothness(self) -> float:
        """A quarter of the largest second moment, and the ridge."""
        return self._largest_moment() / 4 + self.ridge

    def risks(self, theta: Tensor) -> Tensor:
        """Mean logistic losses and the ridge."""
        return softplus(-self.signed_features @ theta).mean(1) + self.ridge / 2 * theta.square().sum()

    def lipschitz_within(self, distance: float) -> float:
        """The root of the largest second moment, and the ridge at the rim."""
        rim = float(torch.linalg.vector_norm(self.solution)) + distance
        return math.sqrt(self._largest_moment()) + self.ridge * rim

    def _largest_moment(self) -> float:
        """Of a group's features, in any direction."""
        moments = torch.einsum("tnd,tne->tde", self.signed_features, self.signed_features)
        return float(torch.linalg.eigvalsh(moments).max()) / self.signed_features.shape[1]
