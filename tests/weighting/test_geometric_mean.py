import numpy as np
import pytest
import torch

from taskrobust import GeometricMean

RISKS = np.array([5.0, 0.5, 2.0])


def test_weights_are_the_geometric_mean_divided_by_t_times_the_risk() -> None:
    weights = GeometricMean().setup("abc").weights(torch.tensor(RISKS), torch.ones(3))

    np.testing.assert_allclose(weights.numpy(), np.cbrt(RISKS.prod()) / (3 * RISKS))


def test_absent_task_is_excluded_from_the_mean() -> None:
    weights = GeometricMean().setup("abc").weights(torch.tensor(RISKS), torch.tensor([2.0, 0.0, 2.0]))

    np.testing.assert_allclose(weights.numpy()[[0, 2]], np.sqrt(10) / (2 * RISKS[[0, 2]]))


def test_gradient_agrees_with_torchjd() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    risks = torch.tensor(RISKS, requires_grad=True)

    (gradient,) = torch.autograd.grad(scalarization.GeometricMean()(risks), risks)

    torch.testing.assert_close(GeometricMean().setup("abc").weights(risks.detach(), torch.ones(3)), gradient)
