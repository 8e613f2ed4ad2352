import torch

from taskrobust import MultiTaskLoss, Proportional, TaskLosses


def test_weights_are_shares_of_the_elements() -> None:
    weights = Proportional().setup("abc").weights(torch.tensor([5.0, 1.0, 2.0]), torch.tensor([6.0, 0.0, 2.0]))

    assert weights.tolist() == [0.75, 0, 0.25]


def test_total_is_the_mean_over_all_elements() -> None:
    sums = torch.tensor([9.0, 4.0, 2.0], requires_grad=True)

    total = MultiTaskLoss(["a", "b", "c"], "proportional")(TaskLosses(sums, torch.tensor([3.0, 1.0, 6.0])))
    total.backward()

    torch.testing.assert_close(total.item(), 15 / 10)
    torch.testing.assert_close(sums.grad, torch.full((3,), 1 / 10))
