from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

CONVOLUTIONAL_FEATURES = 512
"""Width of what ``convolutional_network`` returns."""


def linear_network(inputs: int, features: int, seed: int = 0) -> nn.Linear:
    """A linear processor without bias, in float64, with a Gaussian start that depends on the seed alone.

    Args:
        inputs: d_x.
        features: d_f.
        seed: Seed of the start.
    """
    layer = nn.Linear(inputs, features, bias=False, dtype=torch.float64)
    nn.init.normal_(layer.weight, std=inputs**-0.5, generator=torch.Generator().manual_seed(seed))
    return layer


def mlp_network(
    inputs: int, hidden: Sequence[int], features: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    """A fully connected network with ReLU between its layers, with a start that depends on the seed alone.

    Args:
        inputs: d_x.
        hidden: Widths of the hidden layers.
        features: d_f.
        seed: Seed of the start.
        dtype: Type of the parameters.
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
    """A small convolutional network: images [n, 3, 32, 32] to features [n, 512]; other sizes are fine, too.

    Args:
        seed: Seed of the start.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for width, following, stride in [(3, 32, 2), (32, 64, 2), (64, 128, 1)]:
        layer = nn.Conv2d(width, following, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        layers += [layer, nn.BatchNorm2d(following), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
