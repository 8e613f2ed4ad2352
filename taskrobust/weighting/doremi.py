import math
from collections.abc import Mapping

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_softmax


class DoReMi(Weighting):
    r"""Domain reweighting with minimax: exponentiated gradient ascent on excess risks, and the average of its weights.

    .. math::
        \tilde q_t = \frac{q_t \exp(\eta e_t)}{\sum_j q_j \exp(\eta e_j)}, \qquad
        q_t \leftarrow (1 - c)\, \tilde q_t + \frac{c}{T}, \qquad L = \sum_t q_t r_t

    :math:`e_t` are the risks that ``RiskEstimator`` returns: use a reference, in the paper that of a small model which
    was trained with the weights of the data. Weights of absent tasks do not change. The result of the method is the
    average of :math:`q` over the steps, ``average``, with which a second, larger model is trained:
    ``Fixed(Path("runs/doremi"))``.

    Reports of its users: the weights can end at a single task with the paper's step size and not with 0.1
    (`issue 5 of its repository <https://github.com/sangmichaelxie/doremi/issues/5>`_), and weights found with one
    tokenizer do not carry over to another one (issues 15, 18). No method of mixing data was consistently better than
    proportional sampling (Chen et al., Aioli: A Unified Optimization Framework for Language Model Data Mixing, ICLR
    2025).

    Example:
        >>> from taskrobust import FixedReference, MultiTaskLoss, RiskEstimator
        >>> risk = RiskEstimator(reference=FixedReference([2.0, 0.5]))
        >>> criterion = MultiTaskLoss(["noun", "verb"], DoReMi(step_size=0.1), risk=risk)
        >>> for _ in range(10):
        ...     _ = criterion({"noun": torch.tensor(2.5), "verb": torch.tensor(1.5)})
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.38, 'verb': 0.62}
        >>> criterion.weighting.average  # of all ten steps
        tensor([0.4323, 0.5677])

    Args:
        step_size: Step size :math:`\eta`, in inverse units of the risks.
        floor: c, the share of the weights that all tasks have equally.

    Raises:
        ValueError: If ``step_size`` is negative, or ``floor`` not in [0, 1].

    References:
        Xie et al., DoReMi: Optimizing Data Mixtures Speeds Up Language Model Pretraining, NeurIPS 2023, Algorithm 1.
    """

    log_weights: Tensor
    average: Tensor
    step: Tensor

    def __init__(self, step_size: float = 1.0, floor: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= step_size < math.inf:
            raise ValueError(f"Expected step_size >= 0, got {step_size}.")
        if not 0 <= floor <= 1:
            raise ValueError(f"Expected floor in [0, 1], got {floor}.")
        self.step_size = step_size
        self.floor = floor

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return equal weights."""
        equal = torch.full((self.num_tasks,), 1 / self.num_tasks)
        return {"log_weights": equal.log(), "average": equal, "step": torch.zeros((), dtype=torch.int64)}

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the weights after the ascent step on these risks."""
        return self._ascended(risks, counts)

    def update(self, risks: Tensor, counts: Tensor) -> None:
        """Apply the ascent step, and add the weights to the average."""
        weights = self._ascended(risks, counts)
        self.log_weights.copy_(weights.log())
        self.step.add_(1)
        self.average.add_((weights - self.average) / self.step)

    def _ascended(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Weights of all tasks. Those of the present ones share what they had together."""
        present = counts > 0
        before = self.log_weights.exp()
        ascended = masked_softmax(self.log_weights + self.step_size * torch.where(present, risks, 0), counts)
        floor = torch.where(present, self.floor / present.sum().clamp(min=1), 0)
        mixed = (1 - self.floor) * ascended + floor
        return torch.where(present, mixed * torch.where(present, before, 0).sum(), before)
