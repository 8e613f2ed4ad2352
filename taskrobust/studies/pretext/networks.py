"""Networks of processors, and a bound on their capacity."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

CONVOLUTIONAL_FEATURES = 512
"""Width of the features of :func:`convolutional_network`."""


def linear_network(inputs: int, features: int, seed: int = 0) -> nn.Linear:
    """Create a linear processor without bias in float64, with Gaussian initial weights.

    Args:
        inputs: Number of inputs d_x.
        features: Number of features d_f.
        seed: Seed of the initial weights.
    """
    layer = nn.Linear(inputs, features, bias=False, dtype=torch.float64)
    nn.init.normal_(layer.weight, std=inputs**-0.5, generator=torch.Generator().manual_seed(seed))
    return layer


def mlp_network(
    inputs: int, hidden: Sequence[int], features: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    """Create a fully connected network with ReLU between its layers.

    Args:
        inputs: Number of inputs d_x.
        hidden: Widths of the hidden layers.
        features: Number of features d_f.
        seed: Seed of the initial weights.
        dtype: Dtype of the parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for width, following in pairwise([inputs, *hidden, features]):
        layer = nn.Linear(width, following, dtype=dtype)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional_network(seed: int = 0) -> nn.Sequential:
    """Create a small convolutional network from images [n, 3, size, size] to features [n, 512].

    Args:
        seed: Seed of the initial weights.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for width, following, stride in [(3, 32, 2), (32, 64, 2), (64, 128, 1)]:
        layer = nn.Conv2d(width, following, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        layers += [layer, nn.BatchNorm2d(following), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def capacity_lower_bound(network: nn.Module) -> float:
    r"""Compute a lower bound on the number of arbitrary samples that a network can fit.

    .. math:: \mathcal M \ge d \quad \text{(linear, d inputs)}, \qquad
        \mathcal M \ge \min_i k_i / 4 \quad \text{(hidden layers of } k_i \text{ neurons)}

    By Theorem 4, there are populations on which no processor of the class can satisfy (C1) and (C2) unless the number
    of extra samples is at least of this order.

    Args:
        network: Fully connected layers, ``nn.Linear``, in the order of their application.

    Raises:
        ValueError: If the network has other layers with parameters, or no layers with parameters.

    References:
        Huang, Teng, He, Can Pretext-Based Self-Supervised Learning Be Boosted by Downstream Data?, BAAI 2021,
        Definition 1 and Theorem 4.
    """
    with_parameters = [part for part in network.modules() if next(part.parameters(recurse=False), None) is not None]
    layers = [part for part in with_parameters if isinstance(part, nn.Linear)]
    if not layers or len(layers) < len(with_parameters):
        names = [type(part).__name__ for part in with_parameters]
        raise ValueError(f"Expected a network of nn.Linear and layers without parameters, got layers {names}.")
    if len(layers) == 1:
        return float(layers[0].in_features)
    return min(layer.out_features for layer in layers[:-1]) / 4
