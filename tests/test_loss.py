import math
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchjd.aggregation import UPGradWeighting

from taskrobust import (
    DWA,
    FAMO,
    Fixed,
    GradNorm,
    GroupDRO,
    MultiTaskLoss,
    NonFiniteLossError,
    RiskEstimator,
    SoftmaxMinimax,
    TaskLosses,
    Uncertainty,
    Weighting,
    evaluate,
    pool_batches,
)
from taskrobust.weighting import strategies

TASKS = ["noun", "verb", "adjective"]
SUMS, COUNTS = [6.0, 1.0, 8.0], [2.0, 1.0, 8.0]
RISKS = np.array([3.0, 1.0, 1.0])


def losses(sums: list[float] = SUMS, counts: list[float] = COUNTS) -> TaskLosses:
    return TaskLosses(torch.tensor(sums, requires_grad=True), torch.tensor(counts))


def softmax(values: Any) -> Any:
    return np.exp(values) / np.exp(values).sum()


def paper(alpha: float = 1.0) -> SoftmaxMinimax:
    """Equation 7 of the paper."""
    return SoftmaxMinimax(alpha, relative=False)


def values_of(by_task: dict[str, Tensor]) -> list[float]:
    return [value.item() for value in by_task.values()]


def assert_same_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def copied_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def raises(message: str) -> Any:
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


# The total


def test_total_is_the_sum_of_weights_times_risks() -> None:
    criterion = MultiTaskLoss(TASKS, paper())

    total = criterion(losses())

    assert total.item() == pytest.approx(softmax(RISKS) @ RISKS, rel=1e-6)
    assert values_of(criterion.weights) == pytest.approx(softmax(RISKS), rel=1e-6)
    assert values_of(criterion.risks) == pytest.approx(RISKS)


def test_named_means_are_task_losses_of_one_element() -> None:
    named, summed = MultiTaskLoss(TASKS), MultiTaskLoss(TASKS)
    means = {"adjective": torch.tensor(0.5), "noun": torch.tensor(2.0, requires_grad=True), "verb": None}

    total = named(means)
    total.backward()

    assert torch.equal(total, summed(TaskLosses(torch.tensor([2.0, 0.0, 0.5]), torch.tensor([1.0, 0.0, 1.0]))))
    assert torch.equal(means["noun"].grad, named.weights["noun"])  # type: ignore[union-attr]
    assert named.weights["verb"] == 0


def test_detached_weights_solve_the_easy_task_and_undetached_ones_do_not() -> None:
    def easy_risk_after_descent(detached: bool) -> float:
        hard, easy = (torch.tensor(1.0, requires_grad=True) for _ in range(2))
        criterion = MultiTaskLoss(["hard", "easy"], paper())
        for _ in range(2000):
            risks = torch.stack([4 + hard**2, easy**2])
            total = criterion(TaskLosses(risks, torch.ones(2))) if detached else (risks.softmax(0) * risks).sum()
            gradients = torch.autograd.grad(total, (hard, easy))
            with torch.no_grad():
                for parameter, gradient in zip((hard, easy), gradients, strict=True):
                    parameter -= 0.1 * gradient
        return easy.item() ** 2

    fixed_point = 1.0  # of u = 1 + exp(-u)
    for _ in range(100):
        fixed_point = 1 + math.exp(-fixed_point)
    assert easy_risk_after_descent(detached=True) < 1e-3
    assert easy_risk_after_descent(detached=False) == pytest.approx(4 - fixed_point, abs=1e-3)


@pytest.mark.parametrize(
    ("weight_sum", "expected"),
    [(1.0, [3 / 7, 4 / 7]), (3, [9 / 7, 12 / 7]), ("tasks", [6 / 7, 8 / 7]), ("paper", [3.0, 4.0])],
)
def test_weight_sums_scale_the_weights_of_the_present_tasks(weight_sum: Any, expected: list[float]) -> None:
    criterion = MultiTaskLoss(TASKS, Fixed([3, 2, 4]), weight_sum=weight_sum)

    criterion(losses([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]))

    noun, verb, adjective = values_of(criterion.weights)
    assert verb == 0
    assert [noun, adjective] == pytest.approx(expected)


def test_auxiliary_tasks_have_fixed_weights_beside_the_others() -> None:
    criterion = MultiTaskLoss(["noun", "verb"], paper(), auxiliary={"nsp": 0.5, "sop": 2.0})
    sums = torch.tensor([4.0, 1.0, 6.0, 100.0], requires_grad=True)

    total = criterion(TaskLosses(sums, torch.tensor([2.0, 1.0, 3.0, 10.0])))
    total.backward()

    weights = softmax(np.array([2.0, 1.0]))
    assert criterion.tasks == ("noun", "verb", "nsp", "sop")
    assert values_of(criterion.weights) == pytest.approx([*weights, 0.5, 2.0])
    assert total.item() == pytest.approx(weights @ [2, 1] + 0.5 * 2 + 2 * 10)
    assert sums.grad.tolist() == pytest.approx([weights[0] / 2, weights[1], 0.5 / 3, 2.0 / 10])  # type: ignore[union-attr]
    assert criterion.last.worst_task == "noun"


def test_an_absent_auxiliary_task_adds_nothing() -> None:
    criterion = MultiTaskLoss(["noun"], auxiliary={"nsp": 0.5})

    total = criterion(TaskLosses(torch.tensor([4.0, 0.0]), torch.tensor([2.0, 0.0])))

    assert total.item() == 2
    assert criterion.risks["nsp"].isnan()


def test_min_weight_is_the_smallest_share_of_a_present_task() -> None:
    criterion = MultiTaskLoss(TASKS, SoftmaxMinimax(alpha=math.inf), min_weight=0.1)

    criterion(losses())
    assert values_of(criterion.weights) == pytest.approx([0.8, 0.1, 0.1])

    criterion(losses([6.0, 0.0, 8.0], [2.0, 0.0, 8.0]))
    assert values_of(criterion.weights) == pytest.approx([0.9, 0.0, 0.1])


def test_a_batch_without_any_task_has_total_zero() -> None:
    batch = losses([0.0] * 3, [0.0] * 3)

    total = MultiTaskLoss(TASKS)(batch)
    total.backward()

    assert total.item() == 0
    assert batch.sums.grad.tolist() == [0, 0, 0]  # type: ignore[union-attr]


def test_bookkeeping_names_the_worst_task_and_how_many_tasks_count() -> None:
    criterion = MultiTaskLoss(TASKS, paper())

    criterion(losses())

    weights = softmax(RISKS)
    entropy = -(weights * np.log(weights)).sum()
    assert criterion.last.worst_task == "noun"
    assert criterion.last.entropy.item() == pytest.approx(entropy)
    assert criterion.last.effective_tasks.item() == pytest.approx(math.exp(entropy))


def test_effective_tasks_is_the_number_of_present_tasks_under_uniform_weights() -> None:
    criterion = MultiTaskLoss(TASKS, "uniform", weight_sum="tasks")

    criterion(losses())
    assert criterion.last.effective_tasks.item() == pytest.approx(3)

    criterion(losses([6.0, 0.0, 8.0], [2.0, 0.0, 8.0]))
    assert criterion.last.effective_tasks.item() == pytest.approx(2)


def test_weights_come_from_the_smoothed_risks_and_apply_to_those_of_the_batch() -> None:
    criterion = MultiTaskLoss(["noun", "verb"], paper(), risk=RiskEstimator(smoothing=0.5))
    criterion(losses([1.0, 4.0], [1.0, 2.0]))

    total = criterion(losses([3.0, 1.0], [1.0, 1.0]))

    running = np.array([(0.5 * 1 + 3) / (0.5 * 1 + 1), (0.5 * 4 + 1) / (0.5 * 2 + 1)])
    assert values_of(criterion.weights) == pytest.approx(softmax(running))
    assert total.item() == pytest.approx(softmax(running) @ [3, 1])


# Accumulation


WINDOW = [([6.0, 1.0, 8.0], [2.0, 1.0, 8.0]), ([0.5, 9.0, 0.0], [1.0, 3.0, 0.0]), ([1.0, 0.0, 0.0], [4.0, 0.0, 0.0])]
UNION = ([7.5, 10.0, 8.0], [7.0, 4.0, 8.0])


def run_window(criterion: MultiTaskLoss, window: Tensor | TaskLosses, parts: Iterable[TaskLosses]) -> list[Tensor]:
    """The totals of an accumulation window."""
    given = {"losses" if isinstance(window, TaskLosses) else "counts": window}
    with criterion.accumulate(**given):  # type: ignore[arg-type]
        return [criterion(part) for part in parts]


def smoothed(weighting: Any) -> MultiTaskLoss:
    return MultiTaskLoss(TASKS, weighting, risk=RiskEstimator(smoothing=0.8, normalization="initial"))


@pytest.mark.parametrize("weighting", [SoftmaxMinimax, Uncertainty, lambda: DWA(period=1)])
@pytest.mark.parametrize("two_passes", [True, False])
def test_the_parts_of_a_window_add_up_to_the_union_batch(weighting: Any, two_passes: bool) -> None:
    in_parts, at_once = smoothed(weighting()), smoothed(weighting())
    for scale in (1.0, 0.7, 2.0):
        parts = [losses([scale * s for s in sums], counts) for sums, counts in WINDOW]
        union = losses([scale * s for s in UNION[0]], UNION[1])
        for criterion in (in_parts, at_once):
            criterion.zero_grad()
        window = pool_batches(parts) if two_passes else sum(part.counts for part in parts)
        totals = run_window(in_parts, window, parts)  # type: ignore[arg-type]
        expected = at_once(union) if two_passes else run_window(at_once, union.counts, [union])[0]
        torch.stack([*totals, expected]).sum().backward()

        torch.testing.assert_close(sum(totals), expected)
        torch.testing.assert_close(in_parts.last.weight_vector, at_once.last.weight_vector)
        torch.testing.assert_close(in_parts.last.risk_vector, at_once.last.risk_vector)
        for part in parts:
            present = part.counts > 0
            torch.testing.assert_close(part.sums.grad[present], union.sums.grad[present])  # type: ignore[index]
        for own, other in zip(in_parts.parameters(), at_once.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad)
        for name, value in at_once.state_dict().items():
            torch.testing.assert_close(in_parts.state_dict()[name], value)


@pytest.mark.parametrize("form", ["parameter", "activation"])
def test_the_gradient_norms_of_a_window_are_those_of_the_union_batch(form: str) -> None:
    in_parts, at_once = MultiTaskLoss(TASKS, GradNorm()), MultiTaskLoss(TASKS, GradNorm())
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 5, generator=generator))
    head = torch.randn(5, 3, generator=generator)

    def batch(inputs: Tensor) -> tuple[TaskLosses, Tensor]:
        hidden = inputs @ weight
        sums = (hidden.tanh() @ head).square().sum(0)
        return TaskLosses(sums, torch.full((3,), float(len(inputs)))), weight if form == "parameter" else hidden

    for _ in range(3):
        inputs = torch.randn(9, 4, generator=generator)
        with in_parts.accumulate(counts=torch.full((3,), 9)):
            for rows in inputs.split([2, 4, 3]):
                in_parts(*batch(rows))
        with at_once.accumulate(counts=torch.full((3,), 9)):
            at_once(*batch(inputs))
        torch.testing.assert_close(in_parts.weighting.norms, at_once.weighting.norms)
        torch.testing.assert_close(in_parts.weighting.task_weights, at_once.weighting.task_weights)


def test_weights_of_a_window_known_by_its_counts_are_those_of_the_running_risk() -> None:
    criterion = MultiTaskLoss(TASKS, paper())
    criterion(losses([6.0, 1.0, 8.0], [2.0, 1.0, 8.0]))
    run_window(criterion, torch.tensor(UNION[1]), [losses(*part) for part in WINDOW])
    assert values_of(criterion.weights) == pytest.approx(softmax(RISKS))

    run_window(criterion, torch.tensor([1, 1, 1]), [losses([0.0] * 3, [1.0] * 3)])
    assert values_of(criterion.weights) == pytest.approx(softmax(np.array([7.5 / 7, 10 / 4, 1.0])))


def test_losses_of_other_counts_than_the_windows_are_named() -> None:
    criterion = MultiTaskLoss(TASKS, paper())
    message = (
        "Expected losses with the counts [7.0, 4.0, 8.0] of the tasks ['noun', 'verb', 'adjective'] in this "
        "accumulation window, got [3.0, 4.0, 8.0]."
    )
    before = copied_state(criterion)
    with raises(message):
        run_window(criterion, torch.tensor(UNION[1]), [losses(*part) for part in WINDOW[:2]])
    assert_same_state(criterion, before)


@pytest.mark.parametrize("two_passes", [True, False])
def test_an_exception_inside_a_window_leaves_the_criterion_as_it_was(two_passes: bool) -> None:
    criterion, untouched = smoothed("softmax_minimax"), smoothed("softmax_minimax")
    parts = [losses(*part) for part in WINDOW]
    window = pool_batches(parts) if two_passes else torch.tensor(UNION[1])
    for each in (criterion, untouched):
        each(losses())

    def interrupted() -> Iterator[TaskLosses]:
        yield parts[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_window(criterion, window, interrupted())

    assert_same_state(criterion, copied_state(untouched))
    batch = losses([1.0, 2.0, 3.0])
    assert torch.equal(criterion(batch), untouched(batch))


# Losses that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named_and_changes_no_state(bad: float) -> None:
    criterion = smoothed("softmax_minimax")
    criterion(losses())
    before = copied_state(criterion)
    message = (
        "Expected finite losses, got NaN, infinity or a count below 0 for ['verb']. Look at the inputs and the "
        "learning rate of these tasks. A mean over no elements is NaN: give None for an absent task, or sums and "
        "counts. on_nonfinite='skip' skips such steps."
    )

    with pytest.raises(NonFiniteLossError, match=f"^{re.escape(message)}$"):
        criterion(losses([6.0, bad, 8.0]))

    assert_same_state(criterion, before)
    assert criterion(losses()).isfinite()


def test_a_loss_that_is_not_finite_inside_a_window_changes_no_state() -> None:
    criterion = smoothed("softmax_minimax")
    criterion(losses())
    before = copied_state(criterion)

    parts = [losses(*WINDOW[0]), losses(*WINDOW[1]), losses([math.nan, 0.0, 0.0], WINDOW[2][1])]

    with pytest.raises(NonFiniteLossError):
        run_window(criterion, torch.tensor(UNION[1]), parts)

    assert_same_state(criterion, before)


@pytest.mark.parametrize("weighting", [name for name in strategies() if name not in ("Fixed", "Gramian")])
def test_a_skipped_step_has_total_zero_and_changes_no_state_but_its_count(weighting: str) -> None:
    criterion = MultiTaskLoss(
        TASKS,
        weighting,
        risk=RiskEstimator(smoothing=0.8, normalization="ema"),
        on_nonfinite="skip",
    )
    shared = torch.ones(2, requires_grad=True)

    def batch(verb: float) -> TaskLosses:
        return TaskLosses(torch.tensor([6.0, verb, 8.0]) * shared.sum(), torch.tensor(COUNTS))

    criterion(batch(1.0), shared=shared).backward()
    assert criterion.last.finite
    before = copied_state(criterion)

    total = criterion(batch(math.nan), shared=shared)

    assert total.item() == 0
    assert not criterion.last.finite
    assert criterion.skipped == 1
    assert criterion.faults.nonfinite.tolist() == [0, 1, 0]
    counters = {name: criterion.state_dict()[name] for name in ("skipped", "faults.nonfinite")}
    assert_same_state(criterion, before | counters)
    assert criterion(batch(1.0), shared=shared).isfinite()
    assert criterion.last.finite
    assert criterion.skipped == 1


@pytest.mark.parametrize("two_passes", [True, False])
def test_a_window_with_a_loss_that_is_not_finite_is_skipped_as_a_whole(two_passes: bool) -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(smoothing=0.8), on_nonfinite="skip")
    criterion(losses())
    before = copied_state(criterion)
    parts = [losses(*WINDOW[0]), losses([0.5, math.inf, 0.0], WINDOW[1][1]), losses(*WINDOW[2])]

    window = pool_batches(parts) if two_passes else torch.tensor(UNION[1])
    totals = run_window(criterion, window, parts)

    assert [total.item() for total in totals[1:]] == [0, 0]
    assert not criterion.last.finite
    assert criterion.skipped == 1
    assert torch.equal(criterion.risk.sums, before["risk.sums"])
    assert torch.equal(criterion.weighting.step, before["weighting.step"])


# Input that does not fit


def test_no_tasks_is_an_error() -> None:
    with raises("Expected a list of one or more tasks with different names, got []."):
        MultiTaskLoss([])


def test_tasks_of_the_same_name_are_an_error() -> None:
    with raises("Expected a list of one or more tasks with different names, got ('noun', 'verb', 'noun')."):
        MultiTaskLoss(["noun", "verb"], auxiliary={"noun": 1.0})


@pytest.mark.parametrize("min_weight", [-0.1, 0.51])
def test_a_min_weight_that_cannot_be_is_an_error(min_weight: float) -> None:
    with raises(f"Expected min_weight in [0, 1 / 2] for 2 tasks, got {min_weight}."):
        MultiTaskLoss(["noun", "verb"], min_weight=min_weight)


@pytest.mark.parametrize("weight_sum", ["mean", 0, -1.0, math.nan])
def test_a_weight_sum_that_cannot_be_is_an_error(weight_sum: Any) -> None:
    with raises(f"Expected a positive number, 'tasks' or 'paper' as weight_sum, got {weight_sum!r}."):
        MultiTaskLoss(["noun", "verb"], weight_sum=weight_sum)


def test_an_unknown_on_nonfinite_is_an_error() -> None:
    with raises("Expected on_nonfinite among ['raise', 'skip'], got 'ignore'."):
        MultiTaskLoss(["noun", "verb"], on_nonfinite="ignore")  # type: ignore[arg-type]


def test_missing_and_unknown_losses_are_errors() -> None:
    criterion = MultiTaskLoss(["noun", "verb"])
    with raises("Expected one loss for each of the tasks ['noun', 'verb'], got losses for ['noun']."):
        criterion({"noun": torch.tensor(1.0)})
    with raises("Expected one loss for each of the tasks ['noun', 'verb'], got losses for ['noun', 'verb', 'nsp']."):
        criterion({"noun": torch.tensor(1.0), "verb": None, "nsp": None})


def test_a_loss_that_is_no_mean_is_an_error() -> None:
    with raises("Expected a mean loss of shape [] for the task 'verb', got shape [4]."):
        MultiTaskLoss(["noun", "verb"])({"noun": torch.tensor(1.0), "verb": torch.ones(4)})


def test_losses_of_another_type_are_an_error() -> None:
    message = "Expected TaskLosses, Outputs, a mapping of task name to mean loss, or a tensor of mean losses, got list."
    with raises(message):
        MultiTaskLoss(["noun", "verb"])([torch.ones(()), torch.ones(())])  # type: ignore[arg-type]


def test_losses_of_another_shape_are_an_error() -> None:
    message = "Expected sums and counts of shape [2] for the tasks ['noun', 'verb'], got [3] and [2]."
    with raises(message):
        MultiTaskLoss(["noun", "verb"])(TaskLosses(torch.ones(3), torch.ones(2)))


def test_losses_on_another_device_are_an_error() -> None:
    with raises("Expected losses on cpu, where the criterion is, got meta. Call criterion.to('meta')."):
        MultiTaskLoss(["noun", "verb"])(TaskLosses(torch.ones(2, device="meta"), torch.ones(2, device="meta")))


def test_missing_shared_tensors_are_an_error() -> None:
    message = (
        "GradNorm needs what the tasks share: call criterion(losses, shared=...) with the parameters of the last "
        "shared layer or the activation after it."
    )
    with raises(message):
        MultiTaskLoss(TASKS, "gradnorm")(losses())


def test_a_string_is_no_list_of_tasks() -> None:
    with raises("Expected a list of one or more tasks with different names, got 'ab'."):
        MultiTaskLoss("ab")


def test_a_number_is_no_mean_loss() -> None:
    criterion = MultiTaskLoss(["noun", "verb"])
    with raises("Expected a tensor as mean loss of the task 'noun', got float."):
        criterion({"noun": 1.0, "verb": torch.tensor(1.0)})


def test_a_window_of_another_shape_is_an_error_when_it_opens() -> None:
    criterion = MultiTaskLoss(["noun", "verb"])
    message = "Expected sums and counts of shape [2] for the tasks ['noun', 'verb'], got [3] and [3]."
    with raises(message), criterion.accumulate(counts=torch.ones(3)):
        pass
    with raises("Expected counts or losses of the window, got none."), criterion.accumulate():
        pass


def test_min_weight_has_no_meaning_without_a_common_sum() -> None:
    with raises("Expected min_weight=0 with weight_sum='paper', where sums differ, got 0.1."):
        MultiTaskLoss(["noun", "verb"], weight_sum="paper", min_weight=0.1)


def test_state_stays_in_float32_when_the_model_around_it_is_cast() -> None:
    model = torch.nn.ModuleDict(
        {"criterion": MultiTaskLoss(["noun", "verb"], "uncertainty"), "head": torch.nn.Linear(2, 2)}
    )
    model.to(torch.bfloat16)
    assert model["head"].weight.dtype == torch.bfloat16
    assert torch.bfloat16 not in {value.dtype for value in model["criterion"].state_dict().values()}


def test_worst_task_is_compared_in_the_units_of_the_risks() -> None:
    risk = RiskEstimator(normalization="static", units=[0.01, 10])
    criterion = MultiTaskLoss(["mse", "ce"], risk=risk)
    criterion({"mse": torch.tensor(0.05), "ce": torch.tensor(5.0)})
    assert criterion.last.worst_task == "mse"


def test_shared_tensor_outside_of_the_graph_is_an_error() -> None:
    criterion = MultiTaskLoss(["noun", "verb"], "gradnorm")
    leaf = torch.tensor(1.0, requires_grad=True)
    with raises("Expected shared tensors that the losses depend on, got no gradient for number 0, of shape [3]."):
        criterion({"noun": leaf * 2, "verb": leaf}, shared=torch.nn.Parameter(torch.ones(3)))


def test_state_of_other_tasks_is_refused() -> None:
    state = MultiTaskLoss(["noun", "verb"]).state_dict()
    with raises("Expected the state of the tasks ['verb', 'noun'], got that of ['noun', 'verb']."):
        MultiTaskLoss(["verb", "noun"]).load_state_dict(state)


def test_a_class_is_no_weighting() -> None:
    with pytest.raises(ValueError, match=r"^Expected a weighting, such as SoftmaxMinimax\(\), or its name, got <class"):
        MultiTaskLoss(["noun", "verb"], SoftmaxMinimax)


@pytest.mark.parametrize(("returned", "got"), [(torch.ones(3), "[3]"), ([1.0, 1.0], "list")])
def test_a_strategy_that_returns_no_weights_is_named(returned: Any, got: str) -> None:
    class Odd(Weighting):
        def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
            return returned

    criterion = MultiTaskLoss(["noun", "verb"], Odd())
    with raises(f"Expected Odd.weights to return a tensor of shape [2], got {got}."):
        criterion({"noun": torch.tensor(1.0), "verb": torch.tensor(2.0)})


def test_before_the_first_step_there_are_no_values() -> None:
    criterion = MultiTaskLoss(["noun", "verb"])
    assert all(value.isnan() for value in (*criterion.weights.values(), *criterion.risks.values()))


# Other forms of losses


def test_means_with_counts_are_sums_and_counts() -> None:
    pairs, summed = MultiTaskLoss(TASKS, "proportional"), MultiTaskLoss(TASKS, "proportional")
    noun = torch.tensor(3.0, requires_grad=True)
    count = torch.tensor(1)

    total = pairs({"noun": (noun, 2), "verb": (torch.tensor(1.0), count), "adjective": (torch.tensor(1.0), 8)})
    total.backward()

    torch.testing.assert_close(total, summed(losses()))
    assert noun.grad.item() == pytest.approx(2 / 11)  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [0, torch.tensor(0)])
def test_a_mean_over_no_elements_is_an_absent_task(count: int | Tensor) -> None:
    criterion = MultiTaskLoss(["noun", "verb"])

    total = criterion({"noun": (torch.tensor(2.0), 3), "verb": (torch.tensor(math.nan), count)})

    assert total.item() == 2
    assert criterion.risks["verb"].isnan()


@pytest.mark.parametrize(
    ("options", "user"),
    [
        ({"weighting": "proportional"}, "Proportional"),
        ({"risk": RiskEstimator(min_count=50)}, "RiskEstimator(min_count=50)"),
    ],
)
def test_means_alone_are_refused_where_counts_matter(options: dict[str, Any], user: str) -> None:
    message = (
        f"Expected the number of elements behind each mean loss, which {user} needs, got a mean alone for 'noun'. Give "
        "TaskLosses, or pairs {task: (mean, count)}."
    )
    with raises(message):
        MultiTaskLoss(["noun", "verb"], **options)({"noun": torch.tensor(1.0), "verb": torch.tensor(2.0)})


def test_a_tensor_of_means_is_one_mean_per_task() -> None:
    stacked, named = MultiTaskLoss(["noun", "verb"]), MultiTaskLoss(["noun", "verb"])
    means = torch.tensor([2.0, 1.0], requires_grad=True)

    total = stacked(means)
    total.backward()

    assert torch.equal(total, named({"noun": torch.tensor(2.0), "verb": torch.tensor(1.0)}))
    assert torch.equal(means.grad, named.last.weight_vector)  # type: ignore[arg-type]
    with raises("Expected mean losses of shape [2] for the tasks ['noun', 'verb'], got [3]."):
        stacked(torch.ones(3))


def test_losses_that_name_other_tasks_are_an_error() -> None:
    with raises("Expected losses of the tasks ['noun', 'verb'] in this order, got ['verb', 'noun']."):
        MultiTaskLoss(["noun", "verb"])(TaskLosses(torch.ones(2), torch.ones(2), ("verb", "noun")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_counts_of_16_bits_are_an_error(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"^Expected counts as integers or float32, got {dtype}, which rounds 1001"):
        MultiTaskLoss(["noun", "verb"])(TaskLosses(torch.ones(2), torch.ones(2, dtype=dtype)))


@pytest.mark.parametrize("count", [math.nan, -1.0])
def test_a_count_that_cannot_be_is_an_error(count: float) -> None:
    with pytest.raises(NonFiniteLossError, match=r"NaN, infinity or a count below 0 for \['verb'\]"):
        MultiTaskLoss(["noun", "verb"])(TaskLosses(torch.ones(2), torch.tensor([1.0, count])))


# Names


@pytest.mark.parametrize("tasks", [{"noun", "verb"}, frozenset(["noun"]), {"noun": 1}.keys()])
def test_collections_without_an_order_are_no_list_of_tasks(tasks: Any) -> None:
    with pytest.raises(ValueError, match=r"^Expected a list of one or more tasks with different names, got "):
        MultiTaskLoss(tasks)


@pytest.mark.parametrize("name", [1, "", "two\nlines", None])
def test_names_that_are_no_line_of_text_are_an_error(name: Any) -> None:
    with raises(f"Expected names of tasks that are strings of one line, got {name!r}."):
        MultiTaskLoss(["noun", name])


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_auxiliary_weights_that_cannot_be_are_an_error(weight: float) -> None:
    with raises(f"Expected finite auxiliary weights of 0 or more, got {{'nsp': {weight}}}."):
        MultiTaskLoss(["noun"], auxiliary={"nsp": weight})


# What a strategy may return and can take


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
def test_weights_that_cannot_be_are_an_error_that_names_strategy_and_task(bad: float) -> None:
    class Odd(Weighting):
        def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
            return torch.tensor([1.0, bad, 2.0])

    criterion = MultiTaskLoss(TASKS, Odd())
    with raises("Expected Odd.weights to return finite numbers of 0 or more, got others for ['verb']."):
        criterion(losses())
    criterion(losses(counts=[2.0, 0.0, 8.0], sums=[6.0, 0.0, 8.0]))  # the weight of an absent task is arbitrary


@pytest.mark.parametrize(
    ("weighting", "bound", "loss"),
    [("GeometricMean", 0, -1.0), ("DWA", 0, -1.0), ("FAMO", 0, -0.1), (FAMO(lower_bound=0.5), 0.5, 0.4)],
)
def test_losses_outside_of_a_strategy_s_domain_are_an_error_that_names_the_task(
    weighting: Any, bound: float, loss: float
) -> None:
    criterion = MultiTaskLoss(["noun", "verb"], weighting)
    name = type(criterion.weighting).__name__
    message = (
        f"Expected losses of {bound:g} or more, which {name} needs, got others for ['verb']. Use another weighting, or "
        "add a constant to the losses of these tasks."
    )
    with raises(message):
        criterion({"noun": torch.tensor(1.0), "verb": torch.tensor(loss)})
    criterion({"noun": torch.tensor(1.0), "verb": None})


def test_no_task_at_all_gives_a_total_of_zero_with_every_strategy() -> None:
    for name, strategy in strategies().items():
        arguments: dict[str, Any] = {"Fixed": {"values": [1, 1, 1]}, "Gramian": {"inner": UPGradWeighting()}}
        criterion = MultiTaskLoss(TASKS, strategy(**arguments.get(name, {})))
        shared = torch.ones(2, requires_grad=True)
        total = criterion(TaskLosses(shared.sum() * torch.zeros(3), torch.zeros(3)), shared=shared)
        assert total.item() == 0, name


def test_epochs_that_never_end_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DWA, "patience", 3)
    criterion = MultiTaskLoss(["noun", "verb"], DWA(period=None))
    means = {"noun": torch.tensor(1.0), "verb": torch.tensor(2.0)}
    for _ in range(2):
        criterion(means)
    criterion.end_epoch()
    for _ in range(2):
        criterion(means)
    with pytest.warns(UserWarning, match=r"^DWA\(period=None\) has not seen the end of an epoch for 3 steps"):
        criterion(means)


# Steps and what is none


@pytest.mark.parametrize("way", ["eval", "no_grad", "inference_mode"])
@pytest.mark.parametrize("window", [False, True])
def test_only_calls_that_train_are_steps(way: str, window: bool) -> None:
    criterion = MultiTaskLoss(TASKS, GroupDRO(), risk=RiskEstimator(smoothing=0.5), on_nonfinite="skip")
    criterion(losses())
    before, last = copied_state(criterion), criterion.last
    context = {"eval": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}[way]
    criterion.train(way != "eval")
    with context(), criterion.accumulate(counts=torch.tensor(COUNTS)) if window else nullcontext():
        total = criterion(losses([1.0, 9.0, 80.0]))
        assert total.isfinite()
        assert total > 5
        assert criterion(losses([1.0, math.nan, 80.0])).isnan()
    assert_same_state(criterion, before)
    assert criterion.last is last


def test_a_recomputation_during_backward_is_an_error() -> None:
    criterion = MultiTaskLoss(["noun"])

    def part(x: Tensor) -> Tensor:
        return criterion({"noun": x.square().sum()})

    total = checkpoint(part, torch.ones(2, requires_grad=True), use_reentrant=False)
    with pytest.raises(ValueError, match=r"^Expected one call of the criterion per step, got another"):
        total.backward()


def test_windows_do_not_nest() -> None:
    criterion = MultiTaskLoss(["noun"])
    with criterion.accumulate(counts=torch.ones(1)):
        with raises("Expected one accumulation window at a time, got one inside of another."):
            criterion.accumulate(counts=torch.ones(1)).__enter__()
        criterion({"noun": torch.tensor(1.0)})


def test_totals_make_up_for_a_framework_that_divides_them() -> None:
    divided, plain = MultiTaskLoss(TASKS), MultiTaskLoss(TASKS)
    gradients = []
    for criterion, divisor in ((divided, 3.0), (plain, 1.0)):
        parts = [losses(*part) for part in WINDOW]
        with criterion.accumulate(counts=torch.tensor(UNION[1]), divided_by=divisor):
            for part in parts:
                (criterion(part) / divisor).backward()
        gradients.append(torch.stack([part.sums.grad for part in parts]))  # type: ignore[misc]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("counts", [[0.1, 0.7, 1e-3], [2.0**25, 3.0, 7.0]])
def test_counts_of_a_window_may_be_any_floats(counts: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        parts = [torch.tensor(counts) * (0.5 + torch.rand(3, generator=generator)) for _ in range(9)]
        criterion = MultiTaskLoss(TASKS)
        with criterion.accumulate(counts=sum(parts)):  # type: ignore[arg-type]
            for number in torch.randperm(9, generator=generator):
                criterion(TaskLosses(torch.ones(3), parts[number]))


def test_the_gram_matrix_is_computed_in_float32_under_autocast() -> None:
    norms = []
    for autocast in (False, True):
        criterion = MultiTaskLoss(["noun", "verb"], "gradnorm")
        shared = torch.ones(3, requires_grad=True)
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            criterion({"noun": 1e-4 * shared.sum(), "verb": 1e3 * shared.sum()}, shared=shared)
        norms.append(criterion.weighting.norms)
    torch.testing.assert_close(norms[1], norms[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(norms[1], 3**0.5 * torch.tensor([1e-4, 1e3]))


# The guard of an optimizer


OPTIMIZERS = {
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_guarded_optimizer_skips_steps_that_are_not_finite(name: str, scaled: bool) -> None:
    def run(factors: list[float], guarded: bool) -> Tensor:
        weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        criterion = MultiTaskLoss(["noun"], on_nonfinite="skip")
        optimizer = OPTIMIZERS[name]([weight])
        if guarded:
            criterion.guard(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=scaled)
        for factor in factors:
            optimizer.zero_grad()
            scaler.scale(criterion({"noun": (factor * weight).square().sum()})).backward()
            scaler.step(optimizer)
            scaler.update()
        return weight.detach()

    torch.testing.assert_close(
        run([1.0, math.nan, 2.0, math.inf, 3.0], guarded=True), run([1.0, 2.0, 3.0], guarded=False)
    )


def test_an_unguarded_optimizer_destroys_the_weights() -> None:
    weight = nn.Parameter(torch.ones(2))
    criterion = MultiTaskLoss(["noun"], on_nonfinite="skip")
    total = criterion({"noun": (math.nan * weight).sum()})
    total.backward()
    torch.optim.SGD([weight], lr=0.1).step()
    assert total.item() == 0
    assert weight.isnan().all()


def test_a_guard_can_be_removed() -> None:
    weight = nn.Parameter(torch.ones(2))
    criterion = MultiTaskLoss(["noun"], on_nonfinite="skip")
    optimizer = torch.optim.SGD([weight], lr=0.1)
    criterion.guard(optimizer).remove()
    criterion({"noun": (math.nan * weight).sum()}).backward()
    optimizer.step()
    assert weight.isnan().all()


def test_a_guard_remembers_all_calls_since_the_last_step() -> None:
    weight = nn.Parameter(torch.ones(2))
    criterion = MultiTaskLoss(["noun"], on_nonfinite="skip")
    optimizer = torch.optim.SGD([weight], lr=0.1)
    criterion.guard(optimizer)
    for factor in (math.nan, 1.0):
        criterion({"noun": (factor * weight).square().sum()}).backward()
    optimizer.step()
    assert weight.tolist() == [1, 1]
    optimizer.zero_grad()
    criterion({"noun": weight.square().sum()}).backward()
    optimizer.step()
    assert weight.tolist() == pytest.approx([0.8, 0.8])


def test_a_guard_refuses_a_closure() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    MultiTaskLoss(["noun"], on_nonfinite="skip").guard(optimizer)
    with pytest.raises(ValueError, match=r"^Expected optimizer\.step\(\) without a closure for a guarded optimizer"):
        optimizer.step(lambda: 0.0)


@pytest.mark.parametrize("guards", [2, 3])
def test_guards_of_one_optimizer_do_not_stop_it_for_good(guards: int) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    criteria = [MultiTaskLoss(["noun"], on_nonfinite="skip") for _ in range(guards)]
    handles = [criterion.guard(optimizer) for criterion in criteria]
    weights = []
    for factor in (math.nan, 1.0, 1.0):
        optimizer.zero_grad()
        for criterion in criteria:
            criterion({"noun": (factor * weight).square().sum()}).backward()
        optimizer.step()
        weights.append(weight.tolist())
    assert weights[0] == [1, 1]
    assert weights[1] != weights[0]
    assert weights[2] != weights[1]
    for handle in handles:
        handle.remove()
    (weight.square().sum()).backward()
    optimizer.step()
    assert weight.tolist() != weights[2]


@pytest.mark.parametrize("alpha", [3.0, 10.0, 100.0])
def test_a_first_window_weighs_alike_whatever_alpha(alpha: float) -> None:
    criterion = MultiTaskLoss(["noun", "verb"], SoftmaxMinimax(alpha))
    with criterion.accumulate(counts=torch.tensor([1, 1])):
        criterion(torch.tensor([1.0, 2.0]))
    assert criterion.last.weight_vector.tolist() == [0.5, 0.5]
    criterion(torch.zeros(2))
    assert criterion.last.weight_vector.tolist() == [0.5, 0.5]


def test_a_part_of_a_criterion_that_failed_can_be_used_again() -> None:
    weighting = SoftmaxMinimax()
    with pytest.raises(ValueError, match="one value per task"):
        MultiTaskLoss(["noun", "verb"], weighting, risk=RiskEstimator(normalization="static", units=[1.0]))
    assert MultiTaskLoss(["noun", "verb"], weighting)(torch.ones(2)).item() == 1


def test_evaluation_restores_the_mode_of_each_module() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Dropout())
    model[1].eval()
    criterion = MultiTaskLoss(["noun", "verb"])
    evaluate(lambda batch: batch, criterion, [torch.ones(2)])
    with pytest.raises(ValueError, match="mean losses of shape"):
        evaluate(model, criterion, [torch.ones(3, 1)])
    assert model.training
    assert not model[1].training
