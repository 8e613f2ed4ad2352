"""The paper's theory: Algorithm 1, its alternatives, their guarantees, and convex test problems.

The risk of a task is its mean loss as a function of the parameters.
"""

from taskrobust.extras import require

require("studies", __name__)

from taskrobust.studies.theory.algorithm import (
    Iterates,
    softmax_weighted_gradient_descent,
    take,
    tilted_mean,
    weighted_gradient_descent,
)
from taskrobust.studies.theory.appendix_c import OutlierExample
from taskrobust.studies.theory.baselines import (
    accelerated_log_sum_exp,
    exponentiated_gradient,
    mirror_prox,
    solve_minimax,
    subgradient_descent,
)
from taskrobust.studies.theory.bounds import (
    constant_alpha_bound,
    convergence_bound,
    descent_radius,
    sample_complexity_bound,
    softmax_gap,
    step_size,
    worst_downstream_risk,
)
from taskrobust.studies.theory.excess import NoisyTaskExample
from taskrobust.studies.theory.sample_complexity import (
    average_start,
    downstream_optima,
    minimax_start,
    outlier_tasks,
    samples_needed,
    simulated_samples_needed,
)

__all__ = [
    "Iterates",
    "NoisyTaskExample",
    "OutlierExample",
    "accelerated_log_sum_exp",
    "average_start",
    "constant_alpha_bound",
    "convergence_bound",
    "descent_radius",
    "downstream_optima",
    "exponentiated_gradient",
    "minimax_start",
    "mirror_prox",
    "outlier_tasks",
    "sample_complexity_bound",
    "samples_needed",
    "simulated_samples_needed",
    "softmax_gap",
    "softmax_weighted_gradient_descent",
    "solve_minimax",
    "step_size",
    "subgradient_descent",
    "take",
    "tilted_mean",
    "weighted_gradient_descent",
    "worst_downstream_risk",
]
