from collections.abc import Sequence

import torch
from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_softmax


class STCH(Weighting):
    r"""Smooth Tchebycheff scalarisation: a preference for each task, and a smooth maximum of what is left to gain.

    .. math::
        L = \mu \log \sum_t \exp \frac{\lambda_t (r_t - z_t)}{\mu}, \qquad
        w_t = \lambda_t \operatorname{softmax}_t \frac{\lambda_t (r_t - z_t)}{\mu}

    With equal preferences this is ``SoftmaxMinimax`` with :math:`\alpha = 1 / (T \mu)`.

    Args:
        num_tasks: Number of tasks T.
        mu: Smoothing :math:`\mu`, in the unit of the risks times that of the preferences.
        preferences: :math:`\lambda_t`, T positive numbers. None takes 1 / T for each.
        ideal: Ideal point :math:`z_t`, the best risk that each task could have, T numbers. None takes 0 for each.

    Raises:
        ValueError: If ``mu`` is not positive, or ``preferences`` or ``ideal`` are not one number for each task.

    References:
        Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML 2024, equation 11.
    """

    preferences: Tensor
    ideal: Tensor

    def __init__(
        self,
        num_tasks: int,
        mu: float = 1.0,
        preferences: Sequence[float] | None = None,
        ideal: Sequence[float] | None = None,
    ) -> None:
        super().__init__(num_tasks)
        if mu <= 0:
            raise ValueError(f"Expected mu > 0, got {mu}.")
        preferences = preferences if preferences is not None else [1 / num_tasks] * num_tasks
        ideal = ideal if ideal is not None else [0.0] * num_tasks
        if len(preferences) != num_tasks or min(preferences) <= 0:
            raise ValueError(f"Expected {num_tasks} positive preferences, got {list(preferences)}.")
        if len(ideal) != num_tasks:
            raise ValueError(f"Expected an ideal point of {num_tasks} numbers, got {list(ideal)}.")
        self.mu = mu
        self.register_buffer("preferences", torch.tensor(preferences, dtype=torch.float32), persistent=False)
        self.register_buffer("ideal", torch.tensor(ideal, dtype=torch.float32), persistent=False)

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Preferences times the softmax of the preferred gaps."""
        return self.preferences * masked_softmax(self.preferences * (risks - self.ideal) / self.mu, counts)
