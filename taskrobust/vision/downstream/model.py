"""An encoder with the head of a downstream task."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from taskrobust.outputs import Outputs, TaskLosses
from taskrobust.vision.downstream.base import DownstreamTask, Predicted
from taskrobust.vision.mae.encoder import Encoder
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Modality


class DownstreamModel(nn.Module):
    r"""Encoder and head that predict the target of a task from maps of an image, and return the summed loss.

    The encoder reads all patches of all inputs. The loss is a sum over the known elements of the truth, images or
    pixels; a sample without any input has none.

    Example:
        >>> from taskrobust.vision.downstream import Classification
        >>> from taskrobust.vision.modalities import Rgb
        >>> task, sizes = Classification(num_classes=10), {"width": 32, "depth": 1, "heads": 2}
        >>> model = DownstreamModel(task, {"rgb": Rgb()}, image_size=32, patch_size=8, **sizes)
        >>> model.predict(rgb=torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 10])

    Args:
        task: The task.
        inputs: Modalities to read, by name. Maps are predicted on the grid of the first.
        image_size: Side in pixels of the maps for which positions are stored. For other sizes they are resized.
        patch_size: Side of a patch in pixels.
        width: Length of the encoder's tokens.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.

    Raises:
        ValueError: If sizes do not fit, or a target is among the inputs.
    """

    def __init__(
        self,
        task: DownstreamTask,
        inputs: Mapping[str, Modality],
        image_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
    ) -> None:
        super().__init__()
        shown = [name for name in task.targets() if name in inputs]
        if shown or not inputs:
            raise ValueError(f"Expected inputs other than {list(task.targets())}, the target, got {list(inputs)}.")
        if image_size % patch_size:
            raise ValueError(f"Expected an image size that is a multiple of {patch_size}, got {image_size}.")
        self.task = task
        self.inputs = dict(inputs)
        self.image_size = image_size
        self.patch_size = patch_size
        grid = (image_size // patch_size,) * 2
        self.encoder = Encoder(self.inputs, grid, patch_size, width, depth, heads)
        self.encoder.requires_grad_(task.trains_encoder)
        self.head = task.head(width, depth, patch_size)

    @classmethod
    def from_mae(cls, mae: MultiModalMae, task: DownstreamTask, inputs: Sequence[str]) -> "DownstreamModel":
        """The encoder of a pre-trained model, with a new head.

        Args:
            mae: The pre-trained model.
            task: The task.
            inputs: Names of the modalities to read, among those that the model was trained to read.

        Raises:
            ValueError: If the model does not read one of them.
        """
        unread = [name for name in inputs if name not in mae.inputs]
        if unread:
            raise ValueError(f"Expected inputs that the model has learned to read, {list(mae.inputs)}, got {unread}.")
        encoder = mae.encoder
        width, depth = encoder.positions.shape[1], len(encoder.blocks)
        read = {name: mae.inputs[name] for name in inputs}
        model = cls(task, read, mae.image_size, mae.patch_size, width, depth, encoder.heads)
        state = encoder.state_dict()
        model.encoder.load_state_dict({name: state[name] for name in model.encoder.state_dict()})
        return model

    def forward(self, **batch: Tensor) -> Outputs:
        """Sum the losses of a batch.

        Args:
            batch: Each input and target as its ``pack`` returns it, stacked, [B, ...];
                present: which of them a sample has, inputs first, bool [B, M], defaults to all;
                label: for classification the class of each image, int64 [B], -1 if unknown;
                soft_labels: for mixed images the share of each class, [B, C].

        Returns:
            Float32 sum of the losses and the number of images, pixels or components, shape [1] each; outside of
            training also the ``Predicted``.
        """
        predictions = self._predict(batch)
        truth = self.truth(batch)
        known = truth != self.task.unknown
        losses = self.task.losses(predictions, truth, batch, self.training)
        return Outputs(
            TaskLosses(losses.where(known, 0).sum()[None], known.sum()[None].float()),
            predictions=None if self.training else Predicted(predictions.detach(), truth),
        )

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The truth of a batch; the task's ``unknown`` where it is not known or a sample has no input."""
        truth = self.task.truth(batch)
        if "present" not in batch:
            return truth
        blind = ~batch["present"][:, : len(self.inputs)].any(1)
        return truth.masked_fill(blind.view(-1, *[1] * (truth.dim() - 1)), self.task.unknown)

    def task_counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Count the images or pixels of a batch, [1], as ``forward`` does, without running the model."""
        return (self.truth(batch) != self.task.unknown).sum()[None].float()

    @torch.no_grad()
    def predict(self, **batch: Tensor) -> Tensor:
        """Predict class scores [B, C] or [B, C, H, W], meters [B, H, W] or normals [B, 3, H, W].

        Args:
            batch: The arguments of ``forward``. Targets are not used and may be missing.
        """
        return self._predict(batch)

    def extra_repr(self) -> str:
        """Task, inputs and sizes."""
        return f"{self.task}, {self.inputs}, image_size={self.image_size}, patch_size={self.patch_size}"

    def _predict(self, batch: Mapping[str, Tensor]) -> Tensor:
        missing = [name for name in self.inputs if name not in batch]
        if missing:
            raise ValueError(f"Expected maps of each of {list(self.inputs)}, got none of {missing}.")
        first = batch[next(iter(self.inputs))]
        present = batch.get("present")
        if present is None:
            present = torch.ones(len(first), len(self.inputs), dtype=torch.bool, device=first.device)
        prepared = {
            name: modality.prepare(batch[name], present[:, number], self.patch_size)
            for number, (name, modality) in enumerate(self.inputs.items())
        }
        layers = self.encoder.layers(prepared)
        grid = next(iter(prepared.values())).grid
        predictions: Tensor = self.head([layers[block] for block in self.head.blocks], grid)
        return predictions

    def depth_of(self, parameter: str) -> int:
        """Depth of a parameter by its name: 0 for the embeddings, then one per block; the head is the deepest."""
        if parameter.startswith("head."):
            return len(self.encoder.blocks) + 1
        part, *rest = parameter.removeprefix("encoder.").split(".")
        return int(rest[0]) + 1 if part == "blocks" else 0
