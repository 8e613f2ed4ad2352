import torch
from torch import Tensor

from taskrobust import MultiTaskLoss, RandomWeights

ONES = torch.ones(3)


def draws(weighting: RandomWeights, steps: int) -> Tensor:
    drawn = []
    for _ in range(steps):
        drawn.append(weighting.weights(ONES, ONES))
        weighting.update(ONES, ONES)
    return torch.stack(drawn)


def test_weights_change_at_each_step_and_are_reproducible() -> None:
    first = draws(RandomWeights(seed=1).setup("abc"), 50)

    assert len(first.unique(dim=0)) == 50
    assert torch.equal(draws(RandomWeights(seed=1).setup("abc"), 50), first)
    assert not torch.equal(draws(RandomWeights(seed=2).setup("abc"), 50), first)


def test_weights_do_not_depend_on_the_global_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = draws(RandomWeights().setup("abc"), 5)
        torch.manual_seed(2)
        assert torch.equal(draws(RandomWeights().setup("abc"), 5), first)


def test_differences_of_log_weights_are_normally_distributed() -> None:
    logs = draws(RandomWeights().setup("abc"), 4000).log()

    difference = logs[:, 0] - logs[:, 1]  # has variance 2
    assert abs(difference.mean()) < 4 * (2 / 4000) ** 0.5
    assert abs(difference.var() - 2) < 4 * 2 * (2 / 4000) ** 0.5


def test_many_tasks_use_little_memory() -> None:
    state = MultiTaskLoss([f"task {number}" for number in range(1000)], RandomWeights()).weighting.state_dict()

    assert sum(value.numel() for value in state.values()) == 1
