import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from taskrobust.training.config import OptimConfig
from taskrobust.training.optim import make_average, make_optimizer, make_schedule
from taskrobust.weighting import SoftmaxMinimax, Uncertainty

STEPS = 100


def model() -> nn.Module:
    torch.manual_seed(0)
    frozen = nn.Linear(4, 4).requires_grad_(False)
    return nn.Sequential(nn.Embedding(10, 4), frozen, nn.LayerNorm(4), nn.Linear(4, 2))


def test_matrices_decay_and_vectors_and_the_weighting_do_not() -> None:
    network, weighting = model(), Uncertainty().setup("abc")
    config = OptimConfig(lr=0.5, weighting_lr=0.25, weight_decay=0.125)
    optimizer = make_optimizer(network, weighting, config)
    rules = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    embedding, _, norm, linear = network
    assert rules == {
        id(embedding.weight): (0.5, 0.125),
        id(linear.weight): (0.5, 0.125),
        id(linear.bias): (0.5, 0.0),
        id(norm.weight): (0.5, 0.0),
        id(norm.bias): (0.5, 0.0),
        id(weighting.log_variance): (0.25, 0.0),
    }


def test_weighting_without_parameters_has_no_group() -> None:
    assert len(make_optimizer(model(), SoftmaxMinimax().setup("abc"), OptimConfig()).param_groups) == 2


def test_step_is_that_of_adamw_with_the_given_settings() -> None:
    config = OptimConfig(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.3)
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = make_optimizer(layer, SoftmaxMinimax().setup("abc"), config)
    value, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate([1.0, -3.0, 0.5], start=1):
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
        step_size = (first / (1 - 0.8**step)) / (math.sqrt(second / (1 - 0.9**step)) + 1e-3)
        value = value * (1 - 0.1 * 0.3) - 0.1 * step_size
    assert layer.weight.item() == pytest.approx(value, rel=1e-6)


SHAPES = {
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "constant": lambda progress: 1.0,
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("warmup", [0, 20])
def test_learning_rate_rises_and_follows_its_schedule(name: Any, warmup: int) -> None:
    config = OptimConfig(lr=0.5, weighting_lr=0.25, schedule=name, warmup_steps=warmup)
    optimizer = make_optimizer(model(), Uncertainty().setup("abc"), config)
    schedule = make_schedule(optimizer, config, STEPS)
    for step in range(STEPS):
        after = SHAPES[name]((step - warmup) / (STEPS - warmup))
        share = step / warmup if step < warmup else after
        assert schedule.get_last_lr() == pytest.approx([0.5 * share, 0.5 * share, 0.25 * share], abs=1e-9)
        optimizer.step()
        schedule.step()


def test_cosine_ends_at_the_smallest_learning_rate() -> None:
    config = OptimConfig(lr=0.5, schedule="cosine", min_lr=0.1, warmup_steps=20)
    optimizer = make_optimizer(model(), SoftmaxMinimax().setup("abc"), config)
    schedule = make_schedule(optimizer, config, STEPS)
    for step in range(STEPS):
        cosine = (1 + math.cos(math.pi * (step - 20) / (STEPS - 20))) / 2
        expected = 0.5 * step / 20 if step < 20 else 0.1 + 0.4 * cosine
        assert schedule.get_last_lr() == pytest.approx([expected, expected], abs=1e-9)
        optimizer.step()
        schedule.step()


def walk(average: Any, network: nn.Linear, steps: int) -> list[torch.Tensor]:
    seen = []
    for step in range(steps):
        nn.init.constant_(network.weight, float(step**2))
        average.update(network)
        seen.append(network.weight.detach().clone())
    return seen


def test_exponential_average_is_that_of_a_loop() -> None:
    network = nn.Linear(2, 2)
    average = make_average(network, OptimConfig(average="ema", ema_decay=0.7))
    seen = walk(average, network, 8)
    expected = seen[0]
    for value in seen[1:]:
        expected = 0.7 * expected + 0.3 * value
    torch.testing.assert_close(average.module.weight, expected)


def test_averaged_iterate_is_the_mean_over_all_steps() -> None:
    network = nn.Linear(2, 2)
    average = make_average(network, OptimConfig(average="iterate"))
    seen = walk(average, network, 8)
    torch.testing.assert_close(average.module.weight, torch.stack(seen).mean(0))


def test_average_goes_on_from_its_state() -> None:
    config = OptimConfig(average="iterate")
    network = nn.Linear(2, 2)
    average = make_average(network, config)
    walk(average, network, 5)
    resumed = make_average(nn.Linear(2, 2), replace(config))
    resumed.load_state_dict(average.state_dict())
    for each in (average, resumed):
        walk(each, network, 3)
    assert torch.equal(average.module.weight, resumed.module.weight)


def test_no_average_is_none() -> None:
    assert make_average(nn.Linear(2, 2), OptimConfig()) is None


def test_rate_decays_from_layer_to_layer_as_in_timm() -> None:
    network = VisionTransformer(img_size=16, patch_size=8, embed_dim=8, depth=3, num_heads=2, num_classes=2)
    depths = {name: depth for depth, names in enumerate(_layers(network)) for name in names}
    config = OptimConfig(lr=0.5, weight_decay=0.125, layer_decay=0.75)
    groups = make_optimizer(network, SoftmaxMinimax().setup("abc"), config, depths.__getitem__).param_groups
    expected = param_groups_layer_decay(network, 0.125, layer_decay=0.75)
    ours = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    theirs = {id(p): (0.5 * g["lr_scale"], g["weight_decay"]) for g in expected for p in g["params"]}
    matrices = {id(p) for p in network.parameters() if p.dim() > 1}
    assert {p: rate for p, (rate, _) in ours.items()} == pytest.approx({p: rate for p, (rate, _) in theirs.items()})
    assert all(ours[p][1] == 0.125 for p in matrices)


def _layers(network: VisionTransformer) -> list[list[str]]:
    names = [name for name, _ in network.named_parameters()]
    blocks = [[n for n in names if n.startswith(f"blocks.{b}.")] for b in range(3)]
    blocks[-1] += ["norm.weight", "norm.bias"]  # where timm counts it
    head = ["head.weight", "head.bias"]
    return [[n for n in names if n not in sum(blocks, head)], *blocks, head]


def test_decay_over_layers_that_are_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^Expected layer_decay 1 for a model whose layers are unknown, got"):
        make_optimizer(model(), SoftmaxMinimax().setup("abc"), OptimConfig(layer_decay=0.5))


def test_warm_up_below_one_is_a_share_of_the_steps() -> None:
    for warmup_steps in (0.06, 6):
        optimizer = make_optimizer(model(), SoftmaxMinimax().setup("abc"), OptimConfig(lr=1.0))
        schedule = make_schedule(optimizer, OptimConfig(lr=1.0, warmup_steps=warmup_steps), STEPS)
        rates = [schedule.get_last_lr()[0]]
        for _ in range(8):
            optimizer.step()
            schedule.step()
            rates.append(schedule.get_last_lr()[0])
        assert rates[:7] == pytest.approx([step / 6 for step in range(7)])
        assert rates[7] == pytest.approx(93 / 94)
