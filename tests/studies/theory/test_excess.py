import numpy as np
import pytest
import torch

from taskrobust.studies.theory import NoisyTaskExample

GRID = np.linspace(-0.5, 1.5, 200_001)


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.9, 3.0])
@pytest.mark.parametrize("curvature", [0.1, 0.25, 1.0])
def test_solutions_are_the_minimizers_on_a_grid(noise: float, curvature: float) -> None:
    example = NoisyTaskExample(noise, curvature)
    risks = np.stack([GRID**2, curvature * (GRID - 1) ** 2 + noise])
    excess = risks - np.array([[0], [noise]])

    assert example.theta_average == pytest.approx(GRID[risks.mean(0).argmin()], abs=1e-5)
    assert example.theta_minimax == pytest.approx(GRID[risks.max(0).argmin()], abs=1e-5)
    assert example.theta_excess == pytest.approx(GRID[excess.max(0).argmin()], abs=1e-5)


def test_risks_and_excess() -> None:
    example = NoisyTaskExample(noise=0.5, curvature=0.25)
    theta = torch.tensor([0.2], dtype=torch.float64)

    torch.testing.assert_close(example.risks(theta), torch.tensor([0.04, 0.66], dtype=torch.float64))
    torch.testing.assert_close(example.excess(theta), torch.tensor([0.04, 0.16], dtype=torch.float64))
    assert example.worst_excess(0.2) == pytest.approx(0.16)
