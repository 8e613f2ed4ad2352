"""Pretext learning with downstream data: processors, the conditions that they must satisfy, and a complete pipeline.

The risk of a task is its mean loss.
"""

from taskrobust.extras import require

require("studies", __name__)

from taskrobust.studies.pretext.criteria import conditional_uncorrelatedness, epsilon_ci, information_loss
from taskrobust.studies.pretext.generators import ClassImages, ClassMixture, GaussianData
from taskrobust.studies.pretext.least_squares import fit_linear, linear_mse
from taskrobust.studies.pretext.losses import (
    general_processor_loss,
    linear_processor_loss,
    population_loss,
    processor_loss,
)
from taskrobust.studies.pretext.networks import (
    CONVOLUTIONAL_FEATURES,
    capacity_lower_bound,
    convolutional_network,
    linear_network,
    mlp_network,
)
from taskrobust.studies.pretext.pipeline import PretextNetwork, PretextPipeline, Probe
from taskrobust.studies.pretext.processor import Processor, optimal_linear_processor
from taskrobust.studies.pretext.tasks import Colorization, PretextTask, Rotation, SplitHalf

__all__ = [
    "CONVOLUTIONAL_FEATURES",
    "ClassImages",
    "ClassMixture",
    "Colorization",
    "GaussianData",
    "PretextNetwork",
    "PretextPipeline",
    "PretextTask",
    "Probe",
    "Processor",
    "Rotation",
    "SplitHalf",
    "capacity_lower_bound",
    "conditional_uncorrelatedness",
    "convolutional_network",
    "epsilon_ci",
    "fit_linear",
    "general_processor_loss",
    "information_loss",
    "linear_mse",
    "linear_network",
    "linear_processor_loss",
    "mlp_network",
    "optimal_linear_processor",
    "population_loss",
    "processor_loss",
]
