import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from taskrobust import (
    FAMO,
    FixedReference,
    ModelReference,
    MultiTaskLoss,
    PowerLawReference,
    Reference,
    RiskEstimator,
    SoftmaxMinimax,
    TaskLosses,
    evaluate,
    pool_batches,
)

CPU = torch.device("cpu")
TASKS = ["noun", "verb"]


def losses(sums: list[float], counts: list[float], reference: list[float] | None = None) -> TaskLosses:
    frozen = None if reference is None else torch.tensor(reference)
    return TaskLosses(torch.tensor(sums), torch.tensor(counts), reference=frozen)


def test_excess_is_the_running_risk_minus_the_reference_and_no_less_than_zero() -> None:
    risk = RiskEstimator(smoothing=0.5, reference=FixedReference([1.0, 3.0])).setup(TASKS)
    risk.update(losses([4.0, 4.0], [2.0, 2.0]))
    risk.update(losses([9.0, 8.0], [3.0, 4.0]))

    noun = (0.5 * 4 + 9) / (0.5 * 2 + 3)
    assert risk.running().tolist() == pytest.approx([noun - 1.0, 0.0])


def test_the_excess_is_bounded_after_pooling_over_batches_not_before() -> None:
    risk = RiskEstimator(smoothing=0.5, reference=FixedReference([1.0, 0.0])).setup(TASKS)
    risk.update(losses([0.0, 1.0], [1.0, 1.0]))  # an excess of -1
    risk.update(losses([3.0, 1.0], [1.0, 1.0]))

    assert risk.running()[0].item() == pytest.approx((0.5 * (0 - 1) + (3 - 1)) / 1.5)


def test_excess_is_in_units_of_the_normalization() -> None:
    reference = FixedReference([1.0, 1.0])
    risk = RiskEstimator(normalization="static", units=[2.0, 0.5], reference=reference).setup(TASKS)
    risk.update(losses([3.0, 2.0], [1.0, 1.0]))

    assert risk.running().tolist() == [1.0, 2.0]


def test_min_count_shrinks_the_excess() -> None:
    risk = RiskEstimator(min_count=4, reference=FixedReference([1.0, 1.0])).setup(TASKS)
    risk.update(losses([6.0, 20.0], [2.0, 10.0]))

    assert risk.running().tolist() == [(6 - 2) / 4, (20 - 10) / 10]


def test_the_loss_and_its_gradient_are_those_of_the_risks() -> None:
    criterion = MultiTaskLoss(TASKS, SoftmaxMinimax(alpha=1.0, relative=False), risk=fixed([2.0, 0.5]))
    sums = torch.tensor([6.0, 4.0], requires_grad=True)

    total = criterion(TaskLosses(sums, torch.tensor([2.0, 4.0])))
    total.backward()

    weights = np.exp([3 - 2, 1 - 0.5]) / np.exp([3 - 2, 1 - 0.5]).sum()
    assert criterion.last.weight_vector.tolist() == pytest.approx(weights)
    assert total.item() == pytest.approx(weights @ [3, 1])
    assert sums.grad is not None
    assert sums.grad.tolist() == pytest.approx(weights / [2, 4])
    assert {task: risk.item() for task, risk in criterion.risks.items()} == {"noun": 3.0, "verb": 1.0}
    assert {task: excess.item() for task, excess in criterion.excess.items()} == {"noun": 1.0, "verb": 0.5}


def fixed(values: Any, **settings: Any) -> RiskEstimator:
    return RiskEstimator(reference=FixedReference(values), **settings)


def test_the_ratio_measures_risks_in_units_of_the_reference() -> None:
    criterion = MultiTaskLoss(TASKS, SoftmaxMinimax(alpha=1.0, relative=False), risk=fixed([2.0, 0.5], excess="ratio"))
    sums = torch.tensor([3.0, 1.0], requires_grad=True)

    total = criterion(TaskLosses(sums, torch.ones(2)))
    total.backward()

    weights = np.exp([0.5, 1.0]) / np.exp([0.5, 1.0]).sum()
    assert criterion.risk.running().tolist() == [0.5, 1.0]
    assert criterion.last.worst_task == "verb"
    assert total.item() == pytest.approx(weights @ [1.5, 2.0])
    assert sums.grad is not None
    assert sums.grad.tolist() == pytest.approx(weights / [2.0, 0.5])


def test_evaluation_compares_excess_risks_with_a_constant_reference() -> None:
    criterion = MultiTaskLoss(TASKS, risk=fixed({"verb": 0.5, "noun": 2.5}))

    found = evaluate(lambda batch: batch, criterion, [losses([6.0, 4.0], [2.0, 4.0])])

    assert found.risks == {"noun": 3.0, "verb": 1.0}
    assert (found.mean, found.worst, found.worst_task) == (0.5, 0.5, "noun")


def test_evaluation_with_a_reference_model_compares_excess_risks_on_the_same_data() -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(reference=ModelReference()))
    batches = [losses([6.0, 4.0], [2.0, 2.0]), losses([2.0, 4.0], [2.0, 2.0])]
    frozen = iter([losses([4.0, 1.0], [2.0, 2.0]), losses([2.0, 3.0], [2.0, 2.0])])

    found = evaluate(lambda batch: batch, criterion, batches, reference=lambda batch: next(frozen))

    assert found.risks == {"noun": 2.0, "verb": 2.0}
    assert (found.mean, found.worst, found.worst_task) == (0.75, 1.0, "verb")


def test_evaluation_leaves_out_a_reference_that_changes_over_time() -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(reference=PowerLawReference()))
    for step in range(1, 40):
        criterion(losses([4 + step**-0.5, 2.0 * step**-0.5], [1.0, 1.0]))
    assert criterion.last.worst_task == "verb"

    found = evaluate(lambda batch: batch, criterion, [losses([4.0, 1.0], [1.0, 1.0])])

    assert (found.worst, found.worst_task) == (4.0, "noun")


# Numbers


def test_references_are_read_by_name_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    file.write_text(json.dumps({"risks": {"verb": 1.0, "noun": 2.0, "nsp": 0.3}}))
    reference = FixedReference(file).setup(TASKS)

    assert reference.risks(CPU).tolist() == [2.0, 1.0]


@pytest.mark.parametrize("content", ["", "null", "[1]", '{"risks": [1, 2]}', '{"risks": {"noun": "low"}}', "\x00"])
def test_a_file_of_another_kind_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"^Expected a JSON file .*, {re.escape(str(file))} is none"):
        FixedReference(file).setup(TASKS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fixed([1.0, math.nan]).setup(TASKS),
            "Expected finite reference risks, got (1.0, nan) for ['noun', 'verb'].",
        ),
        (
            lambda: fixed({"noun": 1.0}).setup(TASKS),
            "Expected a reference risk of each task, got none of ['verb'] in {'noun': 1.0}.",
        ),
        (
            lambda: fixed([1.0]).setup(TASKS),
            "Expected one value per task of ['noun', 'verb'] in FixedReference(values=...), got [1.0].",
        ),
        (lambda: PowerLawReference(steps=0), "Expected steps >= 1 or None, got 0."),
        (lambda: fixed([1.0], excess="quotient"), "Expected excess among ['difference', 'ratio'], got 'quotient'."),
        (
            lambda: RiskEstimator(reference=[1.0, 2.0]),  # type: ignore[arg-type]
            "Expected a reference such as FixedReference([...]), got [1.0, 2.0].",
        ),
        (
            lambda: RiskEstimator(excess="ratio"),
            "Expected a reference and normalization 'none' with excess 'ratio', whose unit is the reference, got None "
            "and 'none'.",
        ),
        (
            lambda: RiskEstimator(reference=PowerLawReference(), excess="ratio"),
            "Expected excess 'difference' with PowerLawReference, whose first values are 0, got 'ratio'.",
        ),
        (
            lambda: MultiTaskLoss(TASKS, FAMO(lower_bound=0.5), risk=fixed([1.0, 1.0])),
            "Expected a weighting of excess risks, which may be 0, got FAMO for risks of 0.5 or more.",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make()


# Model


def test_the_reference_of_a_model_is_its_running_risk_on_the_same_elements() -> None:
    risk = RiskEstimator(smoothing=0.5, reference=ModelReference()).setup(TASKS)
    risk.update(losses([4.0, 4.0], [2.0, 2.0], reference=[2.0, 4.0]))
    risk.update(losses([9.0, 0.0], [3.0, 0.0], reference=[3.0, 0.0]))

    assert risk.reference is not None
    assert risk.reference.risks(CPU).tolist() == [(0.5 * 2 + 3) / (0.5 * 2 + 3), 2.0]
    assert risk.running().tolist() == [(0.5 * (4 - 2) + (9 - 3)) / (0.5 * 2 + 3), 0.0]


def test_noise_that_both_models_share_cancels_in_the_excess() -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(reference=ModelReference()))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        hard = torch.rand(2, generator=generator) * 100
        criterion(TaskLosses(hard + torch.tensor([1.0, 2.0]), torch.ones(2)), reference=TaskLosses(hard, torch.ones(2)))
        torch.testing.assert_close(criterion.risk.running(), torch.tensor([1.0, 2.0]), rtol=1e-4, atol=0)


def test_a_window_pools_the_losses_of_the_reference_model() -> None:
    in_parts, at_once = (
        MultiTaskLoss(TASKS, risk=RiskEstimator(smoothing=0.5, reference=ModelReference())) for _ in range(2)
    )
    parts = [losses([6.0, 1.0], [2.0, 1.0], [3.0, 0.5]), losses([1.0, 0.0], [1.0, 0.0], [2.0, 0.0])]
    for two_passes in (True, False, True):
        union = pool_batches(parts)
        window = {"losses": union} if two_passes else {"counts": union.counts}
        with in_parts.accumulate(**window):  # type: ignore[arg-type]
            total = sum(in_parts(part) for part in parts)
        if two_passes:
            expected = at_once(union)
        else:
            with at_once.accumulate(counts=union.counts):
                expected = at_once(union)
        torch.testing.assert_close(total, expected)
        for name, value in at_once.state_dict().items():
            torch.testing.assert_close(in_parts.state_dict()[name], value)


def test_missing_losses_of_the_reference_model_are_an_error() -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(reference=ModelReference()))
    message = "^ModelReference needs the losses of the reference model: call criterion\\(losses, reference=...\\)"
    with pytest.raises(ValueError, match=message):
        criterion(losses([1.0, 2.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match=message), criterion.accumulate(losses=losses([1.0, 2.0], [1.0, 1.0])):
        pass


def test_losses_of_a_reference_model_that_nothing_uses_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"^Expected no losses of a reference model without RiskEstimator"):
        MultiTaskLoss(TASKS)(losses([1.0, 2.0], [1.0, 1.0]), reference=losses([1.0, 2.0], [1.0, 1.0]))


def test_losses_of_a_reference_model_on_other_elements_are_an_error() -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(reference=ModelReference()))
    message = (
        r"^Expected losses of the reference model on the same elements, whose counts are \[1.0, 1.0\], got \[1.0, 2"
    )
    with pytest.raises(ValueError, match=message):
        criterion(losses([1.0, 2.0], [1.0, 1.0]), reference=losses([1.0, 2.0], [1.0, 2.0]))


def test_a_loss_of_the_reference_model_that_is_not_finite_is_named_and_changes_nothing() -> None:
    criterion = MultiTaskLoss(TASKS, risk=RiskEstimator(reference=ModelReference()), on_nonfinite="skip")
    criterion(losses([1.0, 2.0], [1.0, 1.0], [0.5, 0.5]))
    before = {name: value.clone() for name, value in criterion.risk.state_dict().items()}

    criterion(losses([1.0, 2.0], [1.0, 1.0], [0.5, math.nan]))

    assert not criterion.last.finite
    assert all(torch.equal(value, before[name]) for name, value in criterion.risk.state_dict().items())


# Power law


def curve(limit: float, slope: float, exponent: float, steps: int, noise: float = 0.0, seed: int = 0) -> Tensor:
    """Mean losses of steps of 100 elements."""
    elements = 100 * torch.arange(steps) + 50
    generator = torch.Generator().manual_seed(seed)
    return limit + slope * elements**-exponent + noise * torch.randn(steps, generator=generator) / 10


def limits(curves: list[Tensor], **settings: Any) -> PowerLawReference:
    reference = PowerLawReference(**settings).setup([f"task {number}" for number in range(len(curves))])
    counts = torch.full((len(curves),), 100.0)
    for means in torch.stack(curves, 1):
        reference.update(TaskLosses(100 * means, counts), torch.zeros(len(curves)))
    return reference


def test_the_limit_of_a_curve_without_noise_is_found() -> None:
    found = limits([curve(2.0, 20.0, 0.3, 3000), curve(0.0, 10.0, 0.2, 3000), curve(4.0, 10.0, 0.5, 3000)])

    assert found.limits[0].item() == pytest.approx(2.0, abs=0.1)
    assert found.limits[1].item() == pytest.approx(0.0, abs=0.1)
    assert found.limits[2].item() == pytest.approx(0.98 * found.risks_seen[-1, 2].item(), abs=1e-4)


def test_noise_makes_the_limit_too_small_rather_than_too_large() -> None:
    found = limits([curve(2.0, 20.0, 0.3, 2000, noise=3.0, seed=seed) for seed in range(10)]).limits

    assert found.max() < 2.2
    assert found.mean() > 0.8


def test_the_fit_is_that_of_nonnegative_least_squares() -> None:
    reference = limits([curve(2.0, 20.0, 0.3, 500, noise=1.0)])
    known = int((reference.elements > 0).sum())
    used = slice(reference.intervals - known + known // 8, None)
    risks, exposures, elements = (
        values[used, 0].double().numpy() for values in (reference.risks_seen, reference.exposures, reference.elements)
    )
    assert 8 <= known < reference.intervals
    root = np.sqrt(elements / elements.sum())
    errors, found = [], []
    without = []
    for exponent in reference.exponents:
        powers = (exposures / exposures[-1]) ** -exponent
        solution, error = nnls(root[:, None] * np.stack([np.ones_like(powers), powers], 1), root * risks)
        errors.append(error**2)
        found.append(solution[0])
        without.append(nnls(root[:, None] * powers[:, None], root * risks)[1] ** 2)
    best = int(np.argmin(errors))
    expected = min(found[best] * (1 - errors[best] / min(without)), 0.98 * risks.min())

    assert expected > 0.5
    assert reference.limits[0].item() == pytest.approx(expected, rel=0.02)


def test_before_eight_intervals_the_reference_is_zero() -> None:
    means = curve(2.0, 20.0, 0.3, 8)
    assert limits([means[:7]]).limits.item() == 0
    assert limits([means]).limits.item() > 0


def test_a_task_that_is_rarely_present_has_its_own_intervals() -> None:
    often, seldom = limits([curve(2.0, 20.0, 0.3, 400)]), PowerLawReference().setup(["rare"])
    for step, mean in enumerate(curve(2.0, 20.0, 0.3, 400)):
        for _ in range(step % 3):
            seldom.update(TaskLosses(torch.zeros(1), torch.zeros(1)), torch.ones(1))
        seldom.update(TaskLosses(100 * mean[None], torch.tensor([100.0])), torch.zeros(1))
    assert torch.equal(seldom.limits, often.limits)


def test_after_the_given_steps_the_reference_stays() -> None:
    means = curve(2.0, 20.0, 0.3, 300)
    assert torch.equal(limits([means], steps=200).limits, limits([means[:200]]).limits)
    assert not torch.equal(limits([means]).limits, limits([means[:200]]).limits)


def test_excess_minimax_serves_the_improvable_task_where_minimax_serves_the_noisy_one() -> None:
    """Two tasks: one has a risk of 2 whatever the parameter, the other a risk that it can bring to 0."""

    def trained(risk: RiskEstimator) -> tuple[float, float]:
        noisy, improvable = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        criterion = MultiTaskLoss(TASKS, SoftmaxMinimax(alpha=4.0, relative=False), risk=risk)
        for _ in range(100):
            total = criterion({"noun": 2 + (noisy[0] - 1).square() / 2, "verb": (improvable[0] - 1).square() / 2})
            for value, gradient in zip(
                (noisy, improvable), torch.autograd.grad(total, [noisy, improvable]), strict=True
            ):
                value.data -= 0.1 * gradient
        weights = criterion.weights
        return weights["noun"].item(), (improvable.item() - 1) ** 2 / 2

    raw_weight, raw_gap = trained(RiskEstimator())
    excess_weight, excess_gap = trained(fixed([2.0, 0.0]))

    assert raw_weight > 0.99
    assert excess_weight == pytest.approx(0.5, abs=0.01)
    assert excess_gap < 0.01 < raw_gap


class _Half(Reference):
    def initial_state(self) -> dict[str, Tensor]:
        return {"first": torch.zeros(self.num_tasks)}

    def update(self, pooled: TaskLosses, decay: Tensor) -> None:
        self.first.copy_(torch.where(self.first > 0, self.first, pooled.sums / pooled.counts))

    def risks(self, device: torch.device) -> Tensor:
        return self.first / 2


def test_an_own_reference_resumes() -> None:
    straight, resumed = (MultiTaskLoss(TASKS, risk=RiskEstimator(reference=_Half())) for _ in range(2))
    straight(losses([2.0, 6.0], [1.0, 1.0]))
    resumed.load_state_dict(straight.state_dict())
    for criterion in (straight, resumed):
        criterion(losses([4.0, 4.0], [1.0, 1.0]))
        assert criterion.risk.running().tolist() == [3.0, 1.0]
