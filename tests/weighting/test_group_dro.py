import numpy as np
import pytest
import torch

from taskrobust import GroupDRO

RISKS = np.array([[2.0, 0.5, 1.0], [0.1, 3.0, 1.0], [1.0, 1.0, 4.0]])


def test_weights_are_exponentiated_gradient_ascent() -> None:
    weighting = GroupDRO(step_size=0.3).setup("abc")
    q = np.full(3, 1 / 3)
    for risks in torch.tensor(RISKS).float():
        q *= np.exp(0.3 * risks.numpy())
        q /= q.sum()
        np.testing.assert_allclose(weighting.weights(risks, torch.ones(3)).numpy(), q, rtol=1e-5)
        weighting.update(risks, torch.ones(3))


def test_absent_task_is_not_updated() -> None:
    weighting = GroupDRO(step_size=0.3).setup("abc")
    weighting.update(torch.tensor([2.0, 9.0, 1.0]), torch.tensor([1.0, 0.0, 1.0]))

    q = np.exp([0.6, 0, 0.3]) / np.exp([0.6, 0, 0.3]).sum()
    np.testing.assert_allclose(weighting.log_weights.exp().numpy(), q, rtol=1e-6)


@pytest.mark.parametrize("risk", [250.0, 1e4, 1e6])
def test_large_risks_are_finite(risk: float) -> None:
    weighting = GroupDRO(step_size=1.0).setup("abc")
    risks = torch.tensor([risk, risk - 1, 0])
    for _ in range(100):
        weights = weighting.weights(risks, torch.ones(3))
        weighting.update(risks, torch.ones(3))
        assert weights.isfinite().all()
        assert weights.sum().item() == pytest.approx(1)
    assert weights.argmax() == 0


def test_negative_step_size_raises() -> None:
    with pytest.raises(ValueError, match=r"^Expected step_size >= 0, got -1\.$"):
        GroupDRO(-1).setup("abc")
