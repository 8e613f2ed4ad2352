import pytest
import torch

from taskrobust import IMTLL, MultiTaskLoss, TaskLosses

RISKS = [2.0, 0.5, 4.0]
SCALES = [0.0, 0.5, -1.0]


def test_gradients_agree_with_torchjd() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    criterion = MultiTaskLoss(["a", "b", "c"], IMTLL(), weight_sum="paper")
    theirs = scalarization.IMTLL(3)
    for parameter in (criterion.weighting.scale, theirs.log_scale):
        parameter.data.copy_(torch.tensor(SCALES))
    ours_at, theirs_at = (torch.tensor(RISKS, requires_grad=True) for _ in range(2))

    criterion(TaskLosses(ours_at, torch.ones(3))).backward()
    theirs(theirs_at).backward()

    torch.testing.assert_close(ours_at.grad, theirs_at.grad)
    torch.testing.assert_close(criterion.weighting.scale.grad, theirs.log_scale.grad)


def test_weighted_risks_become_equal() -> None:
    criterion = MultiTaskLoss(["a", "b", "c"], IMTLL())
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(TaskLosses(torch.tensor(RISKS), torch.ones(3))).backward()
        optimizer.step()

    weighted = criterion.last.weight_vector * torch.tensor(RISKS)
    torch.testing.assert_close(weighted, weighted[:1].expand(3), rtol=1e-4, atol=0)


def test_the_scale_of_an_absent_task_has_no_gradient() -> None:
    criterion = MultiTaskLoss(["a", "b"], IMTLL())
    criterion(TaskLosses(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))).backward()

    assert criterion.weighting.scale.grad.tolist() == [1, 0]
