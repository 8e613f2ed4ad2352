from torch import nn


def capacity_lower_bound(network: nn.Module) -> float:
    r"""How many samples of any distribution a network can fit for sure.

    .. math:: \mathcal M \ge d \quad \text{(linear, d inputs)}, \qquad
        \mathcal M \ge \min_i k_i / 4 \quad \text{(hidden layers of } k_i \text{ neurons)}

    By Theorem 4 there are populations on which no processor of the class can meet (C1) and (C2) while the extra
    samples are fewer in order than this.

    Args:
        network: Fully connected layers, ``nn.Linear``, in the order in which they apply.

    Raises:
        ValueError: If the network has other layers with parameters, or none.

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
