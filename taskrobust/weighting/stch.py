import math
from collections.abc import Sequence
from typing import Self

from torch import Tensor

from taskrobust.weighting.base import Weighting, masked_softmax


class STCH(Weighting):
    r"""Smooth Tchebycheff scalarization: a smooth maximum of the weighted gaps between risks and ideal risks.

    .. math::
        L = \mu \log \sum_t \exp \frac{\lambda_t (r_t - z_t)}{\mu}, \qquad
        w_t = \lambda_t \operatorname{softmax}_t \frac{\lambda_t (r_t - z_t)}{\mu}

    With equal preferences this is ``SoftmaxMinimax(alpha, relative=False)`` with :math:`\alpha = 1 / (T \mu)`.

    Example:
        >>> import torch
        >>> from taskrobust import MultiTaskLoss
        >>> criterion = MultiTaskLoss(["noun", "verb"], STCH(mu=0.5))
        >>> _ = criterion({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)})
        >>> {task: round(weight.item(), 2) for task, weight in criterion.weights.items()}
        {'noun': 0.73, 'verb': 0.27}

    Args:
        mu: Smoothing :math:`\mu`, in units of the risks times units of the preferences.
        preferences: Positive preferences :math:`\lambda_t`, one per task. None uses 1 / T for each.
        ideal: Ideal point :math:`z_t`, the best possible risk of each task. None uses 0 for each.

    Raises:
        ValueError: If ``mu`` is not positive, or ``preferences`` or ``ideal`` are not one number per task.

    References:
        Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML 2024, equation 11.
    """

    def __init__(
        self, mu: float = 1.0, preferences: Sequence[float] | None = None, ideal: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not mu > 0:
            raise ValueError(f"Expected mu > 0, got {mu}.")
        if preferences is not None and not all(0 < preference < math.inf for preference in preferences):
            raise ValueError(f"Expected positive preferences, got {list(preferences)}.")
        self.mu = mu
        self.preferences = preferences
        self.ideal = ideal

    def setup(self, tasks: Sequence[str]) -> Self:
        """Check that there is one preference and one ideal risk per task."""
        super().setup(tasks)
        self._preferences = self.per_task("preferences", default=1 / len(tasks))
        self._ideal = self.per_task("ideal", default=0.0)
        return self

    def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
        """Compute the preferences times the softmax of the weighted gaps."""
        preferences = self._preferences.on(risks.device)
        gaps = preferences * (risks - self._ideal.on(risks.device))
        return preferences * masked_softmax(gaps, counts, 1 / self.mu)
