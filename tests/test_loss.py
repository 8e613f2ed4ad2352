import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from taskrobust import (
    DWA,
    Fixed,
    GradNorm,
    MultiTaskLoss,
    NonFiniteLossError,
    RiskEstimator,
    SoftmaxMinimax,
    TaskLosses,
    Uncertainty,
    Uniform,
    Weighting,
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
    criterion = MultiTaskLoss(TASKS)

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
        criterion = MultiTaskLoss(["hard", "easy"])
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
    ("reduction", "expected"),
    [("mean", [3 / 7, 4 / 7]), ("sum", [6 / 7, 8 / 7]), ("paper", [3.0, 4.0])],
)
def test_reductions_scale_the_weights_of_the_present_tasks(reduction: Any, expected: list[float]) -> None:
    criterion = MultiTaskLoss(TASKS, Fixed(3, [3, 2, 4]), reduction=reduction)

    criterion(losses([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]))

    noun, verb, adjective = values_of(criterion.weights)
    assert verb == 0
    assert [noun, adjective] == pytest.approx(expected)


def test_auxiliary_tasks_have_fixed_weights_beside_the_others() -> None:
    criterion = MultiTaskLoss(["noun", "verb"], auxiliary={"nsp": 0.5, "sop": 2.0})
    sums = torch.tensor([4.0, 1.0, 6.0, 100.0], requires_grad=True)

    total = criterion(TaskLosses(sums, torch.tensor([2.0, 1.0, 3.0, 10.0])))
    total.backward()

    weights = softmax(np.array([2.0, 1.0]))
    assert criterion.tasks == ("noun", "verb", "nsp", "sop")
    assert values_of(criterion.weights) == pytest.approx([*weights, 0.5, 2.0])
    assert total.item() == pytest.approx(weights @ [2, 1] + 0.5 * 2 + 2 * 10)
    assert sums.grad.tolist() == pytest.approx([weights[0] / 2, weights[1], 0.5 / 3, 2.0 / 10])  # type: ignore[union-attr]
    assert criterion.worst_task == "noun"


def test_an_absent_auxiliary_task_adds_nothing() -> None:
    criterion = MultiTaskLoss(["noun"], auxiliary={"nsp": 0.5})

    total = criterion(TaskLosses(torch.tensor([4.0, 0.0]), torch.tensor([2.0, 0.0])))

    assert total.item() == 2
    assert criterion.risks["nsp"].isnan()


def test_min_weight_is_the_smallest_share_of_a_present_task() -> None:
    criterion = MultiTaskLoss(TASKS, SoftmaxMinimax(3, alpha=math.inf), min_weight=0.1)

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
    criterion = MultiTaskLoss(TASKS)

    criterion(losses())

    weights = softmax(RISKS)
    entropy = -(weights * np.log(weights)).sum()
    assert criterion.worst_task == "noun"
    assert criterion.entropy.item() == pytest.approx(entropy)
    assert criterion.effective_tasks.item() == pytest.approx(math.exp(entropy))


def test_effective_tasks_is_the_number_of_present_tasks_under_uniform_weights() -> None:
    criterion = MultiTaskLoss(TASKS, "uniform", reduction="sum")

    criterion(losses())
    assert criterion.effective_tasks.item() == pytest.approx(3)

    criterion(losses([6.0, 0.0, 8.0], [2.0, 0.0, 8.0]))
    assert criterion.effective_tasks.item() == pytest.approx(2)


def test_weights_come_from_the_smoothed_risks_and_apply_to_those_of_the_batch() -> None:
    criterion = MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(2, smoothing=0.5))
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
    with criterion.accumulate(window):
        return [criterion(part) for part in parts]


def smoothed(weighting: Any) -> MultiTaskLoss:
    return MultiTaskLoss(TASKS, weighting, risk=RiskEstimator(3, smoothing=0.8, normalization="initial"))


@pytest.mark.parametrize("weighting", [SoftmaxMinimax, Uncertainty, lambda tasks: DWA(tasks, period=1)])
@pytest.mark.parametrize("two_passes", [True, False])
def test_the_parts_of_a_window_add_up_to_the_union_batch(weighting: Any, two_passes: bool) -> None:
    in_parts, at_once = smoothed(weighting(3)), smoothed(weighting(3))
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
        torch.testing.assert_close(in_parts.weight_vector, at_once.weight_vector)
        torch.testing.assert_close(in_parts.risk_vector, at_once.risk_vector)
        for part in parts:
            present = part.counts > 0
            torch.testing.assert_close(part.sums.grad[present], union.sums.grad[present])  # type: ignore[index]
        for own, other in zip(in_parts.parameters(), at_once.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad)
        for name, value in at_once.state_dict().items():
            torch.testing.assert_close(in_parts.state_dict()[name], value)


@pytest.mark.parametrize("form", ["parameter", "activation"])
def test_the_gradient_norms_of_a_window_are_those_of_the_union_batch(form: str) -> None:
    in_parts, at_once = MultiTaskLoss(TASKS, GradNorm(3)), MultiTaskLoss(TASKS, GradNorm(3))
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 5, generator=generator))
    head = torch.randn(5, 3, generator=generator)

    def batch(inputs: Tensor) -> tuple[TaskLosses, Tensor]:
        hidden = inputs @ weight
        sums = (hidden.tanh() @ head).square().sum(0)
        return TaskLosses(sums, torch.full((3,), float(len(inputs)))), weight if form == "parameter" else hidden

    for _ in range(3):
        inputs = torch.randn(9, 4, generator=generator)
        with in_parts.accumulate(torch.full((3,), 9)):
            for rows in inputs.split([2, 4, 3]):
                in_parts(*batch(rows))
        with at_once.accumulate(torch.full((3,), 9)):
            at_once(*batch(inputs))
        torch.testing.assert_close(in_parts.weighting.norms, at_once.weighting.norms)
        torch.testing.assert_close(in_parts.weighting.task_weights, at_once.weighting.task_weights)


def test_weights_of_a_window_known_by_its_counts_are_those_of_the_running_risk() -> None:
    criterion = MultiTaskLoss(TASKS)
    criterion(losses([6.0, 1.0, 8.0], [2.0, 1.0, 8.0]))
    run_window(criterion, torch.tensor(UNION[1]), [losses(*part) for part in WINDOW])
    assert values_of(criterion.weights) == pytest.approx(softmax(RISKS))

    run_window(criterion, torch.tensor([1, 1, 1]), [losses([0.0] * 3, [1.0] * 3)])
    assert values_of(criterion.weights) == pytest.approx(softmax(np.array([7.5 / 7, 10 / 4, 1.0])))


def test_losses_of_other_counts_than_the_windows_are_named() -> None:
    criterion = MultiTaskLoss(TASKS)
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
        "Expected finite losses, got NaN or infinity for ['verb']. Look at the inputs and the learning rate of these "
        "tasks, or leave such steps out with on_nonfinite='skip'."
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


@pytest.mark.parametrize("weighting", [name for name in strategies() if name != "Fixed"])
def test_a_skipped_step_has_total_zero_and_changes_no_state_but_its_count(weighting: str) -> None:
    criterion = MultiTaskLoss(
        TASKS,
        weighting,
        risk=RiskEstimator(3, smoothing=0.8, normalization="ema"),
        on_nonfinite="skip",
    )
    shared = torch.ones(2, requires_grad=True)

    def batch(verb: float) -> TaskLosses:
        return TaskLosses(torch.tensor([6.0, verb, 8.0]) * shared.sum(), torch.tensor(COUNTS))

    criterion(batch(1.0), shared=shared).backward()
    assert criterion.finite
    before = copied_state(criterion)

    total = criterion(batch(math.nan), shared=shared)

    assert total.item() == 0
    assert not criterion.finite
    assert criterion.skipped == 1
    assert criterion.nonfinite_counts.tolist() == [0, 1, 0]
    counters = {name: criterion.state_dict()[name] for name in ("skipped", "nonfinite_counts")}
    assert_same_state(criterion, before | counters)
    assert criterion(batch(1.0), shared=shared).isfinite()
    assert criterion.finite
    assert criterion.skipped == 1


@pytest.mark.parametrize("two_passes", [True, False])
def test_a_window_with_a_loss_that_is_not_finite_is_skipped_as_a_whole(two_passes: bool) -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(3, smoothing=0.8), on_nonfinite="skip")
    criterion(losses())
    before = copied_state(criterion)
    parts = [losses(*WINDOW[0]), losses([0.5, math.inf, 0.0], WINDOW[1][1]), losses(*WINDOW[2])]

    window = pool_batches(parts) if two_passes else torch.tensor(UNION[1])
    totals = run_window(criterion, window, parts)

    assert [total.item() for total in totals[1:]] == [0, 0]
    assert not criterion.finite
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


def test_a_weighting_of_another_number_of_tasks_is_an_error() -> None:
    with raises("Expected a Uniform of 2 tasks for ['noun', 'verb'], got one of 3."):
        MultiTaskLoss(["noun", "verb"], Uniform(3))


def test_a_risk_estimator_of_another_number_of_tasks_is_an_error() -> None:
    with raises("Expected a RiskEstimator of 2 tasks for ['noun', 'verb'], got one of 3."):
        MultiTaskLoss(["noun", "verb"], risk=RiskEstimator(3))


def test_an_unknown_name_of_a_weighting_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^Expected the name of a weighting among \['DWA', .*\], got 'minmax'\.$"):
        MultiTaskLoss(["noun", "verb"], "minmax")


@pytest.mark.parametrize("min_weight", [-0.1, 0.51])
def test_a_min_weight_that_cannot_be_is_an_error(min_weight: float) -> None:
    with raises(f"Expected min_weight in [0, 1 / 2] for 2 tasks, got {min_weight}."):
        MultiTaskLoss(["noun", "verb"], min_weight=min_weight)


def test_an_unknown_reduction_is_an_error() -> None:
    with raises("Expected a reduction among ['mean', 'sum', 'paper'], got 'average'."):
        MultiTaskLoss(["noun", "verb"], reduction="average")  # type: ignore[arg-type]


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
    with raises("Expected TaskLosses or a mapping of task name to mean loss, got Tensor."):
        MultiTaskLoss(["noun", "verb"])(torch.ones(2))


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
    with raises(message), criterion.accumulate(torch.ones(3)):
        pass
    with raises("Expected the counts or the TaskLosses of the window, got dict."), criterion.accumulate({}):
        pass


def test_min_weight_has_no_meaning_without_a_common_sum() -> None:
    with raises("Expected min_weight=0 with reduction='paper', where sums differ, got 0.1."):
        MultiTaskLoss(["noun", "verb"], reduction="paper", min_weight=0.1)


def test_state_stays_in_float32_when_the_model_around_it_is_cast() -> None:
    model = torch.nn.ModuleDict(
        {"criterion": MultiTaskLoss(["noun", "verb"], "uncertainty"), "head": torch.nn.Linear(2, 2)}
    )
    model.to(torch.bfloat16)
    assert model["head"].weight.dtype == torch.bfloat16
    assert torch.bfloat16 not in {value.dtype for value in model["criterion"].state_dict().values()}


def test_worst_task_is_compared_in_the_units_of_the_risks() -> None:
    risk = RiskEstimator(2, normalization="static", reference=[0.01, 10])
    criterion = MultiTaskLoss(["mse", "ce"], risk=risk)
    criterion({"mse": torch.tensor(0.05), "ce": torch.tensor(5.0)})
    assert criterion.worst_task == "mse"


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
    with pytest.raises(
        ValueError, match=r"^Expected a weighting, such as SoftmaxMinimax\(2\), or its name, got <class"
    ):
        MultiTaskLoss(["noun", "verb"], SoftmaxMinimax)


@pytest.mark.parametrize(("returned", "got"), [(torch.ones(3), "[3]"), ([1.0, 1.0], "list")])
def test_a_strategy_that_returns_no_weights_is_named(returned: Any, got: str) -> None:
    class Odd(Weighting):
        def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
            return returned

    criterion = MultiTaskLoss(["noun", "verb"], Odd(2))
    with raises(f"Expected Odd.weights to return a tensor of shape [2], got {got}."):
        criterion({"noun": torch.tensor(1.0), "verb": torch.tensor(2.0)})


def test_before_the_first_step_there_are_no_values() -> None:
    criterion = MultiTaskLoss(["noun", "verb"])
    assert all(value.isnan() for value in (*criterion.weights.values(), *criterion.risks.values()))
