"""Adds a task to Multi-Modal Mask MAE: brightness, predicted from the same patches as colors, depth and labels."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust import MultiTaskLoss, SoftmaxMinimax
from taskrobust.synthetic.rooms import LABELS, generate_scenes
from taskrobust.vision.data import MaeCollate, Scenes
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Depth, Prepared, Rgb, SemSeg
from taskrobust.vision.transforms.crops import JointCrop


@dataclass(frozen=True)
class Brightness(Rgb):
    source: ClassVar[str | None] = "rgb"  # predicts another modality's maps; None would read maps of its own

    def outputs(self, patch_size: int) -> int:
        return patch_size**2

    def patch_losses(self, prediction: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        errors = (prediction.float() - mean_of_channels(prepared.values)).square().sum(-1)
        return errors, prepared.valid[:, :, 0] * float(prediction.shape[-1])

    def predicted_values(self, prediction: Tensor, prepared: Prepared) -> Tensor:
        return prediction.repeat(1, 1, 3)

    def picture(self, values: Tensor, prepared: Prepared) -> NDArray[np.uint8]:
        return super().picture(mean_of_channels(values).repeat(1, 1, 3), prepared)


def mean_of_channels(patches: Tensor) -> Tensor:
    return patches.unflatten(-1, (3, -1)).mean(-2)


torch.manual_seed(0)
modalities = {
    "rgb": Rgb(),
    "depth": Depth(),
    "semseg": SemSeg(num_classes=len(LABELS)),
    "brightness": Brightness(),
}
model = MultiModalMae(
    modalities, image_size=32, patch_size=8, width=64, depth=2, heads=4, decoder_width=32, decoder_depth=1, visible=8
)
criterion = MultiTaskLoss(model.tasks, SoftmaxMinimax())
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
with tempfile.TemporaryDirectory() as folder:
    generate_scenes(Path(folder), "train", 256, size=36)
    rooms = Scenes(modalities, JointCrop(32, scale=(0.6, 1.0)), folder=Path(folder))
    collate = MaeCollate(modalities, 32)
    for step in range(40):
        keys = [(32 * step % 256 + index, step // 8) for index in range(32)]  # (index, epoch)
        total = criterion(model(**collate(rooms.__getitems__(keys))))
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 13 == 0:
            risks = ", ".join(f"{task} {risk:.2f}" for task, risk in criterion.risks.items())
            print(f"step {step}: {risks}; worst {criterion.last.worst_task}")
