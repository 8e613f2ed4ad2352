from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Depth, NormRgb, Rgb, SemSeg

CLASSES = 5
SIZES = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
DECODER_SIZES = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "visible": 8}


@pytest.fixture
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def small_mae(_seed: None) -> Callable[..., MultiModalMae]:
    """Makes models of 16 patches a map, of which 8 are visible, whose weights make everything matter."""

    def make(**changes: Any) -> MultiModalMae:
        modalities = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg(num_classes=CLASSES), "norm_rgb": NormRgb()}
        model = MultiModalMae(**{"modalities": modalities, **SIZES, **DECODER_SIZES, **changes})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def mae_batch(_seed: None) -> dict[str, Tensor]:
    """Six samples: one without depth, one without semantic map, one with colors only, one with unknown pixels."""
    depth = 4 * torch.rand(6, 1, 32, 32) + 0.5
    depth[3, :, :20] = 0
    semseg = torch.randint(CLASSES, (6, 8, 8), dtype=torch.uint8)
    semseg[3, :, :5] = 255
    present = torch.ones(6, 3, dtype=torch.bool)
    present[0, 1] = present[1, 2] = present[2, 1] = present[2, 2] = False
    depth[[0, 2]] = 0
    semseg[[1, 2]] = 255
    return {
        "rgb": torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8),
        "depth": depth,
        "semseg": semseg,
        "present": present,
        "mask_keys": torch.randint(-(2**62), 2**62, (6,)),
    }
