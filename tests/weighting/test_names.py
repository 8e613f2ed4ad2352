import re

import pytest
import torch
from torch import Tensor

from taskrobust import Fixed, Gramian, MultiTaskLoss, RiskEstimator, SoftmaxMinimax, Weighting
from taskrobust._names import snake_case
from taskrobust.weighting import make_weighting, strategies


@pytest.mark.parametrize("name", ["SoftmaxMinimax", "softmax_minimax", "softmax-minimax"])
def test_strategy_is_found_under_any_spelling_of_its_name(name: str) -> None:
    assert isinstance(make_weighting(name), SoftmaxMinimax)


def test_each_strategy_can_be_created_from_its_name() -> None:
    for strategy in strategies().values():
        if strategy not in (Fixed, Gramian):  # which have no defaults
            assert type(make_weighting(snake_case(strategy.__name__))) is strategy


def test_unknown_name_raises_with_a_suggestion() -> None:
    with pytest.raises(
        ValueError, match=r"^Expected a weighting among \['doremi', .*\], got 'minimax'\. Did you mean 'soft"
    ):
        make_weighting("minimax")


def test_strategies_are_the_exported_subclasses() -> None:
    assert all(issubclass(strategy, Weighting) and strategy.__name__ == n for n, strategy in strategies().items())
    assert Weighting not in strategies().values()
    assert {strategy.__name__ for strategy in Weighting.__subclasses__()} >= set(strategies())


def test_strategy_with_required_arguments_cannot_be_created_from_its_name() -> None:
    with pytest.raises(ValueError, match=r"^Fixed has no defaults for all its arguments: pass an instance\.$"):
        make_weighting("fixed")


@pytest.mark.parametrize("part", [SoftmaxMinimax, RiskEstimator])
def test_part_of_another_criterion_raises_and_names_its_tasks(part: type) -> None:
    used = part()
    MultiTaskLoss(["rgb", "depth"], **{"risk" if part is RiskEstimator else "weighting": used})
    message = (
        f"Expected a new {part.__name__} for the tasks ['noun', 'verb'], got one that belongs to a criterion of the "
        f"tasks ['rgb', 'depth']. Make one {part.__name__} per criterion."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MultiTaskLoss(["noun", "verb"], **{"risk" if part is RiskEstimator else "weighting": used})


def test_custom_strategy_agrees_with_its_formula() -> None:
    class WorstK(Weighting):
        def __init__(self, k: int = 2) -> None:
            super().__init__()
            self.k = k

        def weights(self, risks: Tensor, counts: Tensor) -> Tensor:
            return torch.zeros_like(risks).index_fill(0, risks.topk(self.k).indices, 1.0)

    criterion = MultiTaskLoss(["noun", "verb", "adverb"], WorstK(k=1))
    criterion({"noun": torch.tensor(3.0), "verb": torch.tensor(1.0), "adverb": torch.tensor(2.0)})

    assert criterion.last.weight_vector.tolist() == [1, 0, 0]
    assert repr(criterion) == (
        "MultiTaskLoss(\n"
        "  tasks=['noun', 'verb', 'adverb'], weight_sum=1.0, min_weight=0\n"
        "  (weighting): WorstK(k=1)\n"
        "  (risk): RiskEstimator(smoothing=0.0, min_count=0.0, normalization='none', units=None, "
        "unit_steps=1, unit_decay=0.999, reference=None, excess='difference')\n"
        "  (faults): Faults(tasks=('noun', 'verb', 'adverb'), on_nonfinite='raise')\n"
        ")"
    )
