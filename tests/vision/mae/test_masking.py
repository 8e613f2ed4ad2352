import numpy as np
import pytest
import torch
from torch import Tensor

from taskrobust import _random as hashing
from taskrobust._random import random_bits
from taskrobust.vision.mae.masking import TokenBudget

PATCHES = 196


def keys_of(number: int, epoch: int = 0) -> Tensor:
    seed = np.array([3], dtype=np.uint64)
    return torch.from_numpy(hashing.random_bits(hashing.random_bits(seed, np.arange(number)), epoch).view(np.int64))


def all_present(number: int, maps: int = 3) -> Tensor:
    return torch.ones(number, maps, dtype=torch.bool)


def visible_of_maps(budget: TokenBudget, present: Tensor, patches: int = PATCHES) -> Tensor:
    return patches - budget(keys_of(len(present)), present, patches).masked.sum(-1)


BUDGETS = [
    TokenBudget(),
    TokenBudget(concentration=0.3),
    TokenBudget(concentration=4.0),
    TokenBudget(budget="uniform"),
    TokenBudget(budget="fixed", proportions=[3, 1, 2]),
    TokenBudget(visible=196),
    TokenBudget(visible=1),
]


def test_draws_are_those_of_the_hash_in_numpy() -> None:
    keys = np.arange(7, dtype=np.uint64) * np.uint64(0x123456789ABCDEF1)
    expected = hashing.random_bits(keys[:, None], np.arange(50)).view(np.int64)
    assert (random_bits(torch.from_numpy(keys.view(np.int64))[:, None], torch.arange(50)).numpy() == expected).all()
    assert (random_bits(torch.from_numpy(keys.view(np.int64)), 48).numpy() == expected[:, 48]).all()


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: f"{budget.budget}-{budget.visible}")
def test_exactly_the_budget_is_visible_and_the_rest_is_masked(budget: TokenBudget) -> None:
    present = all_present(200)
    present[50:, 0] = False
    present[100:, 1] = False
    visible, masked = budget(keys_of(200), present, PATCHES)

    assert visible.shape == (200, budget.visible)
    assert (visible.diff(dim=1) > 0).all()
    assert not masked.flatten(1).gather(1, visible).any()
    assert (masked.flatten(1).sum(1) == 3 * PATCHES - budget.visible).all()


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: f"{budget.budget}-{budget.visible}")
def test_a_missing_map_gets_no_budget(budget: TokenBudget) -> None:
    present = all_present(100)
    present[:, 1] = False
    present[50:, 2] = False
    visible = visible_of_maps(budget, present)

    assert (visible[:, 1] == 0).all()
    assert (visible[50:, 2] == 0).all()
    assert (visible.sum(1) == budget.visible).all()


def test_dirichlet_shares_spread_as_the_specification_says() -> None:
    visible = visible_of_maps(TokenBudget(98), all_present(5000), patches=98).double()
    assert visible.mean(0).tolist() == pytest.approx([98 / 3] * 3, abs=1)  # three standard errors
    assert visible.std(0).tolist() == pytest.approx([98 / 18**0.5] * 3, abs=0.6)
    assert (visible == 0).any(1).double().mean().item() == pytest.approx(0.03, abs=0.008)
    assert visible.max() <= 98


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_shares_have_the_moments_of_the_dirichlet_distribution(concentration: float) -> None:
    shares = visible_of_maps(TokenBudget(40, concentration=concentration), all_present(5000), patches=40).double() / 40
    a, total = concentration, 3 * concentration
    assert shares.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.015)
    expected = a * (total - a) / (total**2 * (total + 1))
    assert shares.var(0).tolist() == pytest.approx([expected] * 3, rel=0.06)
    third_moment = (a * (a + 1) * (a + 2)) / (total * (total + 1) * (total + 2))
    assert (shares**3).mean(0).tolist() == pytest.approx([third_moment] * 3, rel=0.1)


def test_fixed_shares_are_those_given_and_scaled_to_the_maps_that_are_there() -> None:
    present = all_present(50)
    present[25:, 0] = False
    visible = visible_of_maps(TokenBudget(90, "fixed", proportions=[6, 2, 1]), present)
    assert visible[:25].tolist() == [[60, 20, 10]] * 25
    assert visible[25:].tolist() == [[0, 60, 30]] * 25


def test_uniform_budget_draws_every_patch_alike() -> None:
    masked = TokenBudget(98, "uniform")(keys_of(1000), all_present(1000), PATCHES).masked
    seen = (~masked).double().mean(0).flatten()
    probability = 98 / 588
    assert seen.mean().item() == pytest.approx(probability, abs=1e-9)
    assert seen.std().item() == pytest.approx((probability * (1 - probability) / 1000) ** 0.5, rel=0.15)


def test_every_patch_of_a_map_is_drawn_alike() -> None:
    masked = TokenBudget(98)(keys_of(1000), all_present(1000), PATCHES).masked
    seen = (~masked).double().mean(0)
    assert ((seen - 1 / 6).abs() < 0.06).all()


def test_a_mask_depends_on_its_key_alone() -> None:
    budget = TokenBudget()
    visible = budget(keys_of(40), all_present(40), PATCHES).visible
    assert torch.equal(budget(keys_of(40)[7:9], all_present(2), PATCHES).visible, visible[7:9])
    assert not torch.equal(budget(keys_of(40, epoch=1), all_present(40), PATCHES).visible, visible)
    assert len(visible.unique(dim=0)) == 40


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_masks_are_the_same_on_every_device_and_nothing_waits_for_it() -> None:
    keys, present = keys_of(2000), all_present(2000)
    keys_there, present_there = keys.cuda(), present.cuda()
    for budget in BUDGETS:
        torch.cuda.set_sync_debug_mode("error")
        try:
            there = budget(keys_there, present_there, PATCHES)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for expected, found in zip(budget(keys, present, PATCHES), there, strict=True):
            assert torch.equal(expected, found.cpu())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visible": 0}, "Expected one or more visible patches, got 0"),
        ({"budget": "even"}, "Expected a budget among .*, got 'even'"),
        ({"concentration": 0.0}, "Expected a concentration above 0, got 0.0"),
        ({"budget": "fixed"}, "Expected proportions with the budget 'fixed', got None"),
        ({"proportions": [1, 2]}, r"Expected no proportions with the budget 'dirichlet', got \[1, 2\]"),
        ({"budget": "fixed", "proportions": [1, 0]}, r"Expected proportions above 0, got \[1, 0\]"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenBudget(**settings)
