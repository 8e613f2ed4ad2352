"""Estimate from 2,000 samples which features of synthetic data satisfy the two conditions of a processor."""

import torch

from taskrobust.studies.pretext import (
    GaussianData,
    conditional_uncorrelatedness,
    epsilon_ci,
    information_loss,
    optimal_linear_processor,
)


def main() -> None:
    data = GaussianData()
    x, z, y = data.sample(2000, seed=0)
    processors = {
        "no processor": torch.eye(52, dtype=torch.float64),
        "loses y": data.blind(12),
        "optimal, penalty 0.3": optimal_linear_processor(data.moments(), 12, penalty=0.3),
    }
    print("C1: correlation of features and pretext labels given y; C2: difference from the smallest error")
    for name, matrix in processors.items():
        features = x @ matrix.T
        c1 = conditional_uncorrelatedness(features, z, y)
        c2 = information_loss(features, y, data.bayes_mse)
        print(
            f"{name}: C1 {c1.debiased:.2f} (p = {c1.p_value:.2g}), "
            f"epsilon_CI {epsilon_ci(features, z, y):.2f}, C2 {c2:.2f}"
        )


if __name__ == "__main__":
    main()
