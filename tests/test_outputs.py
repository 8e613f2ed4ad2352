import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from taskrobust import DisjointRows, MultiTaskLoss, Outputs, TaskLosses, grouped_losses, pool_batches


def test_losses_of_elements_are_sums_and_counts_in_the_order_of_the_names() -> None:
    rgb = torch.rand(8, 98, requires_grad=True)

    losses = TaskLosses.from_elements({"rgb": rgb, "depth": None, "semseg": torch.rand(3).bfloat16()})

    assert losses.tasks == ("rgb", "depth", "semseg")
    torch.testing.assert_close(losses.sums[0], rgb.sum())
    assert losses.counts.tolist() == [784, 0, 3]
    assert losses.sums.dtype == torch.float32
    losses.sums.sum().backward()
    assert torch.equal(rgb.grad, torch.ones_like(rgb))  # type: ignore[arg-type]


def test_losses_of_absent_tasks_alone_lie_on_the_given_device() -> None:
    losses = TaskLosses.from_elements({"rgb": None, "depth": None}, device=torch.device("meta"))

    assert losses.sums.device.type == losses.counts.device.type == "meta"


def test_a_sum_that_is_no_number_is_an_error() -> None:
    message = "Expected a sum and a count of shape [] for the task 'rgb', got [[2], 3]."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TaskLosses.from_sums({"rgb": (torch.ones(2), 3)})


def test_added_losses_are_those_of_the_union_batch() -> None:
    one, other = torch.rand(4), torch.rand(6)

    union = TaskLosses.from_elements({"rgb": one}) + TaskLosses.from_elements({"rgb": other})

    torch.testing.assert_close(union.sums, torch.cat([one, other]).sum()[None])
    assert union.counts.tolist() == [10]


def test_losses_of_different_tasks_cannot_be_added() -> None:
    message = "Expected losses of the tasks ['rgb'] to add, got ['depth']."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TaskLosses.from_elements({"rgb": torch.rand(4)}) + TaskLosses.from_elements({"depth": torch.rand(4)})


def test_grouped_losses_of_tokens_are_those_of_each_group() -> None:
    losses, groups = torch.rand(4, 7), torch.randint(-1, 4, (4, 7))  # -1 and 3 belong to no group

    grouped = TaskLosses.grouped(losses, groups, num_groups=3)

    for group in range(3):
        torch.testing.assert_close(grouped.sums[group], losses[groups == group].sum())
        assert grouped.counts[group] == (groups == group).sum()


def test_groups_of_samples_hold_for_all_their_tokens() -> None:
    losses = torch.rand(3, 5)

    grouped = TaskLosses.grouped(losses, torch.tensor([1, 0, 1]), num_groups=2)

    torch.testing.assert_close(grouped.sums, torch.stack([losses[1].sum(), losses[[0, 2]].sum()]))
    assert grouped.counts.tolist() == [5, 10]


def test_groups_of_another_shape_are_an_error() -> None:
    message = "Expected groups of the shape [3, 5] of the losses, or of its leading dimensions, got [5]."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TaskLosses.grouped(torch.rand(3, 5), torch.zeros(5, dtype=torch.int64), num_groups=2)


@pytest.mark.parametrize("groups", [torch.tensor([1, 0, 1]), torch.randint(2, (3, 5))])
def test_cross_entropy_by_group_leaves_ignored_labels_out(groups: Tensor) -> None:
    logits = torch.randn(3, 5, 11, requires_grad=True)
    labels = torch.randint(11, (3, 5))
    labels[0, 2:] = -100

    losses = grouped_losses(logits, labels, groups, num_groups=2)

    of_tokens = groups if groups.dim() == 2 else groups[:, None].expand(3, 5)
    for group in range(2):
        own = (of_tokens == group) & (labels != -100)
        expected = F.cross_entropy(logits[own], labels[own], reduction="sum")
        torch.testing.assert_close(losses.sums[group], expected)
        assert losses.counts[group] == own.sum()


def test_groups_of_a_classifier_without_tokens() -> None:
    logits, labels = torch.randn(6, 3), torch.randint(3, (6,))

    losses = grouped_losses(logits, labels, torch.tensor([0, 0, 1, 1, 1, 2]), num_groups=4)

    torch.testing.assert_close(losses.sums.sum(), F.cross_entropy(logits, labels, reduction="sum"))
    assert losses.counts.tolist() == [2, 3, 1, 0]


def test_outputs_are_a_tree_of_their_tensors() -> None:
    losses = TaskLosses(torch.ones(2), torch.ones(2), ("a", "b"))
    outputs = Outputs(losses, shared=DisjointRows(torch.ones(3), torch.ones(3)), predictions={"x": torch.ones(1)})

    doubled = pytree.tree_map(lambda tensor: 2 * tensor, outputs)

    assert doubled.losses.tasks == ("a", "b")
    assert doubled.shared.owner.tolist() == [2, 2, 2]
    assert len(pytree.tree_leaves(outputs)) == 5


def test_a_criterion_takes_outputs_with_what_they_share() -> None:
    trunk = nn.Linear(3, 2)
    hidden = trunk(torch.ones(4, 3))
    outputs = Outputs(TaskLosses(hidden.square().sum(0), torch.tensor([4, 4])), shared=hidden)
    criterion = MultiTaskLoss(["a", "b"], "gradnorm")

    criterion(outputs).backward()

    assert (criterion.weighting.norms > 0).all()


def test_pooled_batches_may_be_outputs() -> None:
    losses = TaskLosses(torch.ones(2), torch.tensor([1, 2]))
    assert pool_batches([Outputs(losses), losses]).counts.tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"^Expected one or more batches to pool, got none\.$"):
        pool_batches([])
