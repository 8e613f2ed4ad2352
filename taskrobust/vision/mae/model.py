"""Multi-Modal Mask MAE: an encoder of the visible patches of several maps, and one decoder per map."""

import contextlib
import io
import re
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
    """Predictions of a model, for figures.

    Attributes:
        predictions: Predictions by task, [B, L, outputs].
        prepared: The true maps by input modality.
        masked: Patches that the encoder did not see, bool [B, M, L].
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
    any is not counted.

    .. math:: S_t = \sum_{b:\, n_{tb} > 0} \frac1{n_{tb}} \sum_{i=1}^{n_{tb}} \ell_t(\hat x_{tbi}, x_{tbi}), \qquad
        N_t = |\{b : n_{tb} > 0\}|

    ``model.encoder.compile()`` compiles the part that all tasks share.

    Example:
        >>> from taskrobust.vision.modalities import Depth, Rgb
        >>> sizes = {"width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_heads": 2, "visible": 8}
        >>> model = MultiModalMae({"rgb": Rgb(), "depth": Depth()}, image_size=32, patch_size=8, **sizes)
        >>> maps = {"rgb": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "depth": torch.ones(2, 1, 32, 32)}
        >>> outputs = model(**maps)
        >>> outputs.losses.tasks, outputs.losses.counts.tolist()
        (('rgb', 'depth'), [2.0, 2.0])

    Args:
        modalities: Predicted modalities by name, in the order of the tasks. Those without ``source`` are also read.
        image_size: Side of the maps in pixels.
        patch_size: Side of a patch in pixels.
        width: Length of the encoder's tokens.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Length of the decoders' queries.
        decoder_depth: Blocks of a decoder.
        decoder_heads: Attention heads of the decoders.
        visible: Patches that the encoder sees of a sample, over all maps.
        budget: How they are divided among the maps; see ``TokenBudget``.
        concentration: Parameter of the Dirichlet distribution.
        proportions: Shares of the maps, for the fixed budget.
        memory_efficient: Whether to backpropagate one decoder at a time, so that only one keeps its activations, and to
            recompute the encoder's hidden layers in the backward pass. The gradients are the same. Not for float16,
            where gradients of unscaled losses underflow.

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
        for name in modalities:
            if not re.fullmatch(r"\w[\w.-]*", name):  # files are named after them
                raise ValueError(f"Expected names of modalities of letters, digits, '_', '-' and '.', got {name!r}.")
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
                f"Expected at most {self.patches} visible patches, the number in a map of {image_size} pixels, for "
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

    def forward(self, mask_keys: Tensor | None = None, present: Tensor | None = None, **maps: Tensor) -> Outputs:
        """Sum the losses of the samples for each task.

        Args:
            mask_keys: Random 64 bits per sample that determine its mask, int64 [B]. Defaults to new random ones.
            present: Which input modalities each sample has, in their order, bool [B, M]. Defaults to all.
            maps: Each input modality, as its ``pack`` returns it, stacked, [B, ...].

        Returns:
            Float32 sums of the samples' mean losses and the numbers of samples, [T] each, in the order of ``tasks``;
            the encoder's output as ``shared``, [B, V + 1, width], with the global token last.
        """
        prepared, masks = self._prepare_and_mask(mask_keys, present, maps)
        tokens = self.encoder(prepared, masks.visible)
        losses = [self._task_loss(task, tokens, masks, prepared) for task in self.tasks]
        sums, counts = zip(*losses, strict=True)
        return Outputs(TaskLosses(torch.stack(sums), torch.stack(counts), self.tasks), shared=tokens)

    def task_counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Count the samples of each task in a batch, [T], as ``forward`` does, without running the model."""
        maps = dict(batch)
        prepared, masks = self._prepare_and_mask(maps.pop("mask_keys"), maps.pop("present", None), maps)
        masked = masks.masked
        known = [prepared[self._source(task)].valid.any(-1) & masked[:, self._own(task)] for task in self.tasks]
        return torch.stack([patches.any(1).sum() for patches in known]).float()

    @torch.no_grad()
    def predict(self, mask_keys: Tensor | None = None, present: Tensor | None = None, **maps: Tensor) -> Predictions:
        """Predict a batch, with the arguments of ``forward``."""
        prepared, masks = self._prepare_and_mask(mask_keys, present, maps)
        tokens = self.encoder(prepared, masks.visible)
        predictions = {task: self._decode(task, tokens, masks) for task in self.tasks}
        return Predictions(predictions, prepared, masks.masked)

    def extra_repr(self) -> str:
        """Modalities, sizes and masking."""
        sizes = f"image_size={self.image_size}, patch_size={self.patch_size}, memory_efficient={self.memory_efficient}"
        return f"{self.modalities}, {sizes}, {self.budget}"

    def _prepare_and_mask(
        self, mask_keys: Tensor | None, present: Tensor | None, maps: Mapping[str, Tensor]
    ) -> tuple[dict[str, Prepared], Masks]:
        if set(maps) != set(self.inputs):
            raise ValueError(f"Expected maps of each of {list(self.inputs)}, got {list(maps)}.")
        first = next(iter(maps.values()))
        if present is None:
            present = torch.ones(len(first), len(self.inputs), dtype=torch.bool, device=first.device)
        if mask_keys is None:
            mask_keys = torch.randint(-(2**63), 2**63 - 1, (len(first),), device=first.device)
        prepared = {
            name: modality.prepare(maps[name], present[:, number], self.patch_size)
            for number, (name, modality) in enumerate(self.inputs.items())
        }
        for name, patches in prepared.items():
            if patches.grid != self.encoder.grid:
                raise ValueError(
                    f"Expected maps of {self.encoder.grid} patches of {self.patch_size} pixels, got {patches.grid} in "
                    f"{name!r}. Crop to image_size, or create a model for that size."
                )
        return prepared, self.budget(mask_keys, present, self.patches)

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
