"""Adds a modality to Multi-Modal Mask MAE: inverse depth, next to colors, labels and surface normals."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from taskrobust import MultiTaskLoss, SoftmaxMinimax
from taskrobust.synthetic.rooms import LABELS
from taskrobust.vision.data import MaeCollate, PairedFolders
from taskrobust.vision.downstream.rooms import write_room_images
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Normals, PixelMap, Rgb, SemSeg
from taskrobust.vision.transforms.crops import JointCrop

if TYPE_CHECKING:
    from torchvision.tv_tensors import Mask


@dataclass(frozen=True)
class InverseDepth(PixelMap):
    def decode(self, image: Image) -> "Mask":  # [C, H, W], 0 where unknown
        from torchvision.tv_tensors import Mask

        millimeters = torch.from_numpy(np.array(image).astype(np.float32))[None]
        return Mask((1000 / millimeters).where(millimeters > 0, 0))

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:  # the default is L1
        return (prediction - target).square()

    def colors(self, maps: Tensor) -> Tensor:  # for predictions drawn during training; the default is gray
        return maps.clamp(0, 1) * maps.new_tensor([1.0, 0.8, 0.2])[:, None, None]


torch.manual_seed(0)
modalities = {
    "rgb": Rgb(),
    "inverse": InverseDepth(),
    "semseg": SemSeg(num_classes=len(LABELS)),
    "normals": Normals(),
}
model = MultiModalMae(
    modalities, image_size=32, patch_size=8, width=64, depth=2, heads=4, decoder_width=32, decoder_depth=1, visible=8
)
criterion = MultiTaskLoss(model.tasks, SoftmaxMinimax())
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
with tempfile.TemporaryDirectory() as folder:
    write_room_images(Path(folder), "train", 128, size=36)
    maps = {"rgb": "rgb", "inverse": "depth", "semseg": "semseg", "normals": "normals"}
    folders = {name: Path(folder, "train", map_) for name, map_ in maps.items()}
    rooms = PairedFolders(modalities, JointCrop(32, scale=(0.6, 1.0)), folders=folders)
    collate = MaeCollate(modalities, 32)
    for step in range(40):
        keys = [(32 * step % 128 + index, step // 4) for index in range(32)]  # (index, epoch)
        total = criterion(model(**collate(rooms.__getitems__(keys))))
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 13 == 0:
            risks = ", ".join(f"{task} {risk:.2f}" for task, risk in criterion.risks.items())
            print(f"step {step}: {risks}; worst {criterion.last.worst_task}")
