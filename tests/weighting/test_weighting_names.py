import pytest

from taskrobust import SoftmaxMinimax, Weighting
from taskrobust.weighting import make_weighting, strategies


@pytest.mark.parametrize("name", ["SoftmaxMinimax", "softmax_minimax", "softmaxminimax"])
def test_a_strategy_is_found_under_any_spelling_of_its_name(name: str) -> None:
    weighting = make_weighting(name, 4)

    assert isinstance(weighting, SoftmaxMinimax)
    assert weighting.num_tasks == 4


def test_strategies_are_the_exported_subclasses() -> None:
    assert all(issubclass(strategy, Weighting) and strategy.__name__ == n for n, strategy in strategies().items())
    assert Weighting not in strategies().values()
    assert {strategy.__name__ for strategy in Weighting.__subclasses__()} >= set(strategies())


def test_the_number_of_tasks_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^Expected at least one task, got num_tasks=0\.$"):
        SoftmaxMinimax(0)


def test_a_strategy_that_needs_arguments_cannot_be_made_from_its_name() -> None:
    with pytest.raises(ValueError, match=r"^Fixed has no defaults for all its arguments: pass an instance\.$"):
        make_weighting("fixed", 2)
