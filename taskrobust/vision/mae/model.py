"""Multi-Modal Mask MAE: one encoder that reads visible patches of several maps, one decoder for each to predict."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from taskrobust.outputs import Outputs, TaskLosses
from taskrobust.vision.mae.decoder import Decoder
from taskrobust.vision.mae.encoder import Encoder
from taskrobust.vision.mae.masking import Budget, Masks, TokenBudget
from taskrobust.vision.mae.memory_efficient import loss_with_gradient
from taskrobust.vision.modalities import Modality, Prepared
from taskrobust.vision.modalities.registry import from_plain, to_plain


class Predictions(NamedTuple):
    """What a model predicts, for pictures.

    Attributes:
        predictions: For each task [B, L, outputs].
        prepared: The maps themselves, by name of the input modality.
        masked: Which of their patches the encoder did not see, bool [B, M, L].
    """

    predictions: dict[str, Tensor]
    prepared: dict[str, Prepared]
    masked: Tensor


class MultiModalMae(  # type: ignore[call-arg]
    nn.Module,
    PyTorchModelHubMixin,  # type: ignore[misc]
    library_name="taskrobust",
    coders={Mapping: (to_plain, from_plain)},
):
    r"""Masked autoencoder over several maps of an image that returns the summed loss of every task.

    The loss of a sample for a task is the mean over the known elements of the task's masked patches; a sample without
    any counts nowhere.

    .. math:: S_t = \sum_{b:\, n_{tb} > 0} \frac1{n_{tb}} \sum_{i=1}^{n_{tb}} \ell_t(\hat x_{tbi}, x_{tbi}), \qquad
        N_t = |\{b : n_{tb} > 0\}|

    ``model.encoder.compile()`` compiles the part that all tasks share.

    Example:
        >>> from taskrobust.vision.modalities import Depth, Rgb
        >>> sizes = {"width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_heads": 2, "visible": 8}
        >>> model = MultiModalMae({"rgb": Rgb(), "depth": Depth()}, image_size=32, patch_size=8, **sizes)
        >>> maps = {"rgb": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "depth": torch.ones(2, 1, 32, 32)}
        >>> outputs = model(mask_keys=torch.tensor([1, 2]), present=torch.ones(2, 2, dtype=torch.bool), **maps)
        >>> outputs.losses.tasks, outputs.losses.counts.tolist()
        (('rgb', 'depth'), [2.0, 2.0])

    Args:
        modalities: What is predicted, by name, in the order of the tasks. Those without ``source`` are what is read.
        image_size: Side of the maps in pixels.
        patch_size: Side of a patch in pixels.
        width: Length of the encoder's tokens.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Length of the decoders' queries.
        decoder_depth: Blocks of a decoder.
        decoder_heads: Attention heads of the decoders.
        visible: Patches that the encoder sees of a sample, over all maps.
        budget: How they are shared out over the maps; see ``TokenBudget``.
        concentration: Parameter of the Dirichlet distribution.
        proportions: Shares of the maps, for the fixed budget.
        memory_efficient: Whether to go forward and backward through one decoder at a time, so that no two of them
            hold their activations in memory, and to compute the encoder's hidden layers again in the backward pass. The
            gradients are the same. Not for float16, where the gradients of unscaled losses underflow.

    Raises:
        ValueError: If the sizes do not fit each other, or a source is not read.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, section 4.2.
        Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        image_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder_width: int = 256,
        decoder_depth: int = 2,
        decoder_heads: int = 8,
        visible: int = 98,
        budget: Budget = "dirichlet",
        concentration: float = 1.0,
        proportions: Sequence[float] | None = None,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        self.modalities = dict(modalities)
        self.inputs = {name: modality for name, modality in modalities.items() if modality.source is None}
        self.tasks = tuple(modalities)
        self.image_size = image_size
        self.patch_size = patch_size
        self.memory_efficient = memory_efficient
        self.budget = TokenBudget(visible, budget, concentration, proportions)
        if image_size % patch_size:
            raise ValueError(f"Expected an image size that is a multiple of {patch_size}, got {image_size}.")
        grid = (image_size // patch_size,) * 2
        self.patches = grid[0] * grid[1]
        if visible > self.patches:
            raise ValueError(
                f"Expected at most {self.patches} visible patches, as many as a map of {image_size} pixels has, for "
                f"samples that have a single map, got {visible}."
            )
        if proportions is not None and len(proportions) != len(self.inputs):
            raise ValueError(f"Expected one proportion for each of {list(self.inputs)}, got {list(proportions)}.")
        for tokens, share in ((width, heads), (decoder_width, decoder_heads)):
            if tokens % share:
                raise ValueError(
                    f"Expected a width that is a multiple of the number of heads, got {tokens} and {share}."
                )
        for name, modality in modalities.items():
            if self._source(name) not in self.inputs:
                raise ValueError(f"Expected {modality.source!r}, the source of {name!r}, among {list(self.inputs)}.")
        self.encoder = Encoder(self.inputs, grid, patch_size, width, depth, heads, recompute=memory_efficient)
        self.decoders = nn.ModuleDict(
            {
                name: Decoder(
                    modalities=len(self.inputs),
                    own=self._own(name),
                    grid=grid,
                    outputs=modality.outputs(patch_size),
                    encoder_width=width,
                    width=decoder_width,
                    depth=decoder_depth,
                    heads=decoder_heads,
                )
                for name, modality in modalities.items()
            }
        )

    def forward(self, mask_keys: Tensor, present: Tensor, **maps: Tensor) -> Outputs:
        """Sums the losses of the samples for each task.

        Args:
            mask_keys: Random 64 bits that decide a sample's mask, int64 [B].
            present: Which of the input modalities a sample has, in their order, bool [B, M].
            maps: Each input modality, as its ``pack`` returns it, stacked, [B, ...].

        Returns:
            Float32 sums of the samples' mean losses, and the numbers of samples, [T] each, in the order of ``tasks``;
            as ``shared`` the encoder's output, [B, V + 1, width], the global token at the end.
        """
        prepared = self._prepare(present, maps)
        masks = self.budget(mask_keys, present, self.patches)
        tokens = self.encoder(prepared, masks.visible)
        losses = [self._task_loss(task, tokens, masks, prepared) for task in self.tasks]
        sums, counts = zip(*losses, strict=True)
        return Outputs(TaskLosses(torch.stack(sums), torch.stack(counts), self.tasks), shared=tokens)

    def task_counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Samples of each task in a batch, [T]: the counts that the model would return, without its forward pass."""
        maps = dict(batch)
        mask_keys, present = maps.pop("mask_keys"), maps.pop("present")
        prepared = self._prepare(present, maps)
        masked = self.budget(mask_keys, present, self.patches).masked
        known = [prepared[self._source(task)].valid.any(-1) & masked[:, self._own(task)] for task in self.tasks]
        return torch.stack([patches.any(1).sum() for patches in known]).float()

    @torch.no_grad()
    def predict(self, mask_keys: Tensor, present: Tensor, **maps: Tensor) -> Predictions:
        """Predictions for a batch, with the arguments of ``forward``."""
        prepared = self._prepare(present, maps)
        masks = self.budget(mask_keys, present, self.patches)
        tokens = self.encoder(prepared, masks.visible)
        predictions = {task: self._decode(task, tokens, masks) for task in self.tasks}
        return Predictions(predictions, prepared, masks.masked)

    def _prepare(self, present: Tensor, maps: Mapping[str, Tensor]) -> dict[str, Prepared]:
        if set(maps) != set(self.inputs):
            raise ValueError(f"Expected maps of each of {list(self.inputs)}, got {list(maps)}.")
        prepared = {
            name: modality.prepare(maps[name], present[:, number], self.patch_size)
            for number, (name, modality) in enumerate(self.inputs.items())
        }
        for name, patches in prepared.items():
            if patches.grid != self.encoder.grid:
                raise ValueError(
                    f"Expected maps of {self.encoder.grid} patches of {self.patch_size} pixels, got {patches.grid} in "
                    f"{name!r}. Crop to image_size, or make a model of another one."
                )
        return prepared

    def _source(self, task: str) -> str:
        return self.modalities[task].source or task

    def _own(self, task: str) -> int:
        return list(self.inputs).index(self._source(task))

    def _decode(self, task: str, tokens: Tensor, masks: Masks) -> Tensor:
        predictions: Tensor = self.decoders[task](tokens, masks.visible, masks.masked[:, self._own(task)])
        return predictions

    def _task_loss(
        self, task: str, tokens: Tensor, masks: Masks, prepared: Mapping[str, Prepared]
    ) -> tuple[Tensor, Tensor]:
        """Sum of the samples' losses, and the number of samples."""

        def loss(tokens: Tensor) -> tuple[Tensor, Tensor]:
            predictions = self._decode(task, tokens, masks)
            sums, numbers = self.modalities[task].patch_losses(predictions, prepared[self._source(task)])
            return _sum_of_means(sums, numbers.where(masks.masked[:, self._own(task)], 0))

        if self.memory_efficient and torch.is_grad_enabled():
            return loss_with_gradient(loss, tokens, self.decoders[task].parameters())
        return loss(tokens)

    @classmethod
    def _from_pretrained(cls, *, modalities: Any, strict: bool = True, **kwargs: Any) -> "MultiModalMae":
        if not isinstance(modalities, Mapping):
            modalities = from_plain(modalities)
        with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints that it loads weights
            model: MultiModalMae = super()._from_pretrained(modalities=modalities, strict=strict, **kwargs)
        return model


def _sum_of_means(sums: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the samples of their mean losses, and the number of samples that have one.

    Args:
        sums: Sums of losses in each patch, [B, L]; whatever they are where ``numbers`` is 0, they do not matter.
        numbers: Numbers of losses behind them, [B, L].
    """
    total = sums.where(numbers > 0, 0).sum(1)
    number = numbers.sum(1)
    return (total / number.clamp(min=1)).sum(), (number > 0).sum().float()
