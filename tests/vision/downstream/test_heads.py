import pytest
import torch
from torch import Tensor, nn

from taskrobust.vision.downstream import Classification, DepthEstimation, DownstreamTask, Segmentation
from taskrobust.vision.downstream.heads import ConvNextHead, DptHead, Head, LinearHead, patch_map
from taskrobust.vision.downstream.model import DownstreamModel
from taskrobust.vision.modalities import Rgb


def layers_for(head: Head, grid: tuple[int, int], width: int, maps: int = 1) -> list[Tensor]:
    return [torch.randn(2, maps * grid[0] * grid[1] + 1, width) for _ in head.blocks]


@pytest.mark.parametrize(
    ("task", "whole", "head"),
    [
        (Classification(1000), 86.42, 0.77),
        (Segmentation(40), 95.19, 9.55),
        (DepthEstimation(), 104.53, 18.89),  # 105.71 and 20.07 with the unit of the first fusion that is never used
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_of_vit_b_with_each_head(task: DownstreamTask, whole: float, head: float) -> None:
    with torch.device("meta"):
        model = DownstreamModel(task, {"rgb": Rgb()})
    counts = [sum(parameter.numel() for parameter in part.parameters()) / 1e6 for part in (model, model.head)]
    assert counts == pytest.approx([whole, head], abs=5e-3)


def test_unit_left_out_of_the_dpt_head_makes_the_difference_to_multimae() -> None:
    unit = sum(
        parameter.numel() for parameter in DptHead(64, 4, 16).neck.fusion_stage.layers[1].residual_layer1.parameters()
    )
    assert (18_885_761 + unit) / 1e6 == pytest.approx(20.07, abs=5e-3)


def test_dpt_head_reads_each_quarter_of_the_blocks() -> None:
    assert DptHead(32, 12, 16, channels=16).blocks == (2, 5, 8, 11)
    assert DptHead(32, 4, 16, channels=16).blocks == (0, 1, 2, 3)
    assert LinearHead(32, 12, 3).blocks == ConvNextHead(32, 12, 16, 3, channels=4).blocks == (11,)


@pytest.mark.parametrize(("patch_size", "grid"), [(16, (14, 14)), (16, (5, 3)), (8, (8, 8)), (4, (7, 9)), (32, (2, 3))])
@pytest.mark.parametrize("maps", [1, 2])
def test_maps_are_as_large_as_the_image(patch_size: int, grid: tuple[int, int], maps: int) -> None:
    size = (grid[0] * patch_size, grid[1] * patch_size)
    scores, depth = ConvNextHead(16, 4, patch_size, 5, channels=4), DptHead(16, 4, patch_size, channels=8)
    assert scores(layers_for(scores, grid, 16, maps), grid).shape == (2, 5, *size)
    assert depth(layers_for(depth, grid, 16, maps), grid).shape == (2, *size)


def test_patch_map_holds_the_tokens_of_the_first_map_row_by_row() -> None:
    tokens = torch.randn(2, 2 * 6 + 1, 4)
    maps = patch_map(tokens, (2, 3))
    for row in range(2):
        for column in range(3):
            assert torch.equal(maps[:, :, row, column], tokens[:, 3 * row + column])


def test_linear_head_is_a_linear_map_of_the_normalised_mean() -> None:
    head = LinearHead(8, 2, 3)
    tokens = torch.randn(2, 5, 8)
    mean = tokens.mean(1)
    normalized = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(head([tokens], (2, 2)), normalized @ head.linear.weight.T + head.linear.bias)


def test_convnext_head_makes_four_by_four_places_of_a_patch() -> None:
    head = ConvNextHead(8, 2, 4, 3, channels=2)
    head.convnext = nn.Sequential()
    tokens = torch.randn(2, 2 * 3 + 1, 8)
    vectors = tokens @ head.places.weight[:, :, 0, 0].T + head.places.bias  # [B, L + 1, 2 · 16]
    expected = torch.empty(2, 3, 8, 12)
    for row in range(8):
        for column in range(12):
            place = vectors[:, 3 * (row // 4) + column // 4].reshape(2, 2, 4, 4)[:, :, row % 4, column % 4]
            expected[:, :, row, column] = place @ head.scores.weight[:, :, 0, 0].T + head.scores.bias
    torch.testing.assert_close(head([tokens], (2, 3)), expected)  # a place is a pixel here: nothing is interpolated


@pytest.mark.parametrize(
    "head",
    [LinearHead(16, 4, 3), ConvNextHead(16, 4, 8, 3, channels=4), DptHead(16, 4, 8, channels=8)],
    ids=lambda h: type(h).__name__,
)
def test_all_parameters_of_a_head_are_used(head: Head) -> None:
    head(layers_for(head, (4, 4), 16), (4, 4)).square().sum().backward()  # or DDP would wait for those that are not
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_depth_lies_between_nothing_and_the_largest() -> None:
    head = DptHead(16, 4, 8, largest=7.0, channels=8)
    meters = head([100 * layer for layer in layers_for(head, (4, 4), 16)], (4, 4))
    assert 0 <= meters.min() < meters.max() <= 7


@pytest.mark.parametrize(("depth", "patch_size"), [(3, 16), (12, 14)])
def test_dpt_head_names_what_does_not_fit(depth: int, patch_size: int) -> None:
    with pytest.raises(ValueError, match=f"got {depth} blocks and patches of {patch_size} pixels"):
        DptHead(16, depth, patch_size)
