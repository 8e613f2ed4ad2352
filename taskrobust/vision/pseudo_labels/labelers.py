"""The models that make pseudo-labels: depth or class maps from images."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers.utils import ModelOutput

DepthKind = Literal["metric", "relative", "inverse"]
Precision = Literal["fp32", "bf16", "fp16"]
Size = tuple[int, int]
"""Height and width."""

VOID: Final = 255
"""The label of pixels without a class."""

_MOST_PIXELS: Final = 1 << 22
"""A map of class scores has 133 floats per pixel; labels of larger images are enlarged from a map of this size."""

_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Labeler(ABC):
    """A model of transformers that makes one kind of map.

    Args:
        checkpoint: A folder with a model and its image processor, or a name on the hub.
        device: Device of the model.
        precision: Precision of matrix products; ``fp32`` is float32.

    Raises:
        ValueError: If the checkpoint cannot be loaded, is of another kind of model, or lacks the weights of its head.

    Attributes:
        processor: The checkpoint's image processor.
        provenance: Description of the model, in plain values.
    """

    modality: ClassVar[str]
    """Name of the folder of its maps."""

    auto_class: ClassVar[str]
    head: ClassVar[str]
    """Prefix of the names of the head's weights."""

    def __init__(self, checkpoint: str, device: torch.device, precision: Precision = "fp32") -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.precision = precision
        self.processor, model, missing = self._load()
        self.provenance = {"model": checkpoint, "weights": _digest(model, missing)} | self._describe(model.config)
        self.model = model.eval().to(device)

    def _load(self) -> tuple[Any, Any, set[str]]:
        import transformers

        kind, checkpoint = f"{self.modality}_model", self.checkpoint
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(checkpoint)
            auto_class = getattr(transformers, self.auto_class)
            model, report = auto_class.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"Expected {kind} to be a folder with a model and its image processor, or a name on the hub, "
                f"got {checkpoint!r}: {reason}"
            ) from error
        missing: set[str] = report["missing_keys"]
        if any(name.startswith(self.head) for name in missing):
            raise ValueError(
                f"Expected weights of the head {self.head!r} in {kind}, {checkpoint!r} has none: it is a checkpoint of "
                "another task."
            )
        return processor, model, missing

    @torch.inference_mode()
    def __call__(self, pixels: Tensor, sizes: Sequence[Size]) -> list[NDArray[Any]]:
        """The maps of a batch, each at the size of its image.

        Args:
            pixels: B preprocessed images, [B, 3, h, w].
            sizes: Sizes of the images.

        Raises:
            ValueError: If the model computes NaN or infinity.
        """
        dtype = _DTYPES.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            outputs = self.model(pixel_values=pixels.to(self.device))
        return self._maps(outputs, sizes)

    def _finite(self, output: Tensor) -> Tensor:
        if not output.isfinite().all():
            raise ValueError(
                f"Expected finite numbers from {self.checkpoint}, got NaN or infinity at precision {self.precision!r}. "
                "Use a precision with a larger range: fp16 has the smallest."
            )
        return output.float()

    @abstractmethod
    def encode(self, map_: NDArray[Any]) -> NDArray[Any]:
        """Convert a map of ``__call__`` to the integers of a file."""

    @abstractmethod
    def _describe(self, config: Any) -> dict[str, Any]:
        """Information for users of the maps, in plain values."""

    @abstractmethod
    def _maps(self, outputs: "ModelOutput", sizes: Sequence[Size]) -> list[NDArray[Any]]: ...


class DepthLabeler(Labeler):
    """A depth estimation model.

    Args:
        checkpoint: See :class:`Labeler`.
        device: See there.
        precision: See there.
        kind: The kind of prediction: ``metric`` is meters; ``relative`` increases with the distance, ``inverse``
            decreases with it, both without a unit. None reads it from the model's configuration.

    Raises:
        ValueError: If the checkpoint does not say what it predicts and ``kind`` does not either.
    """

    modality = "depth"
    auto_class = "AutoModelForDepthEstimation"
    head = "head."

    def __init__(
        self, checkpoint: str, device: torch.device, precision: Precision = "fp32", kind: DepthKind | None = None
    ) -> None:
        self.kind = kind
        super().__init__(checkpoint, device, precision)

    def encode(self, map_: NDArray[np.float32]) -> NDArray[np.uint16]:
        """See :func:`depth_in_16_bits`."""
        assert self.kind is not None
        return depth_in_16_bits(map_, self.kind)

    def _describe(self, config: Any) -> dict[str, Any]:
        self.kind = self.kind or _depth_kind(config)
        if self.kind is None:
            raise ValueError(
                f"Expected depth_kind to say what {self.checkpoint!r} predicts, as its configuration does not: metric "
                "(meters), relative (larger is farther) or inverse (larger is nearer)."
            )
        return {"kind": self.kind}

    def _maps(self, outputs: "ModelOutput", sizes: Sequence[Size]) -> list[NDArray[Any]]:
        outputs.predicted_depth = self._finite(outputs.predicted_depth)
        maps = self.processor.post_process_depth_estimation(outputs, list(sizes))
        return [map_["predicted_depth"].reshape(size).cpu().numpy() for map_, size in zip(maps, sizes, strict=True)]


class SemSegLabeler(Labeler):
    """A Mask2Former, used for the class of each pixel.

    Raises:
        ValueError: If the checkpoint is not a Mask2Former, or has more classes than a byte can represent.
    """

    modality = "semseg"
    auto_class = "AutoModelForUniversalSegmentation"
    head = "class_predictor."

    def encode(self, map_: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The labels as they are."""
        return map_

    def _describe(self, config: Any) -> dict[str, Any]:
        if config.model_type != "mask2former":
            raise ValueError(
                f"Expected semseg_model to be a Mask2Former, {self.checkpoint!r} is a {config.model_type}."
            )
        if config.num_labels > VOID:
            raise ValueError(
                f"Expected semseg_model to have at most {VOID} classes, {self.checkpoint!r} has {config.num_labels}."
            )
        return {"classes": [config.id2label[label] for label in range(config.num_labels)]}

    def _maps(self, outputs: "ModelOutput", sizes: Sequence[Size]) -> list[NDArray[Any]]:
        classes, masks = self._finite(outputs.class_queries_logits), self._finite(outputs.masks_queries_logits)
        return [
            self._labels(type(outputs)(class_queries_logits=class_[None], masks_queries_logits=mask[None]), size)
            for class_, mask, size in zip(classes, masks, sizes, strict=True)
        ]

    def _labels(self, outputs: "ModelOutput", size: Size) -> NDArray[np.uint8]:
        """The labels of one image; the scores of a batch at full size could fill the memory."""
        scale = min(1.0, (_MOST_PIXELS / (size[0] * size[1])) ** 0.5)
        smaller = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        labels = self.processor.post_process_semantic_segmentation(outputs, [smaller])[0].to(torch.uint8)
        whole = F.interpolate(labels[None, None], size, mode="nearest-exact")[0, 0]
        numbers: NDArray[np.uint8] = whole.cpu().numpy()
        return numbers


def depth_in_16_bits(depth: NDArray[np.float32], kind: DepthKind) -> NDArray[np.uint16]:
    r"""Depth in 16 bits: larger is farther, 0 is reserved for unknown pixels.

    Metric depth becomes millimeters, at most 65,535. Relative depth z, and inverse depth as z = -d, fills the range:

    .. math:: 1 + 65534 \frac{z - \min z}{\max z - \min z}

    Inverse depth stays linear in one over the distance: its zero is not known, so it cannot be inverted.

    Args:
        depth: A map, finite, [H, W].
        kind: Meaning of its values.
    """
    if kind == "metric":
        levels = (1000 * depth).clip(1, 65_535)
    else:
        far = -depth if kind == "inverse" else depth
        span = far.max() - far.min()
        levels = 1 + 65_534 * (far - far.min()) / (span if span > 0 else 1)
    return levels.round().astype(np.uint16)


def _depth_kind(config: Any) -> DepthKind | None:
    if config.model_type in ("zoedepth", "glpn", "depth_pro"):
        return "metric"
    if config.model_type == "depth_anything":
        return "metric" if config.depth_estimation_type == "metric" else "inverse"
    backbone = getattr(config, "backbone_config", None)
    if config.model_type == "dpt" and getattr(backbone, "model_type", None) != "dinov2":
        return "inverse"  # MiDaS; on DINOv2 there are metric models, too
    return None


def _digest(model: nn.Module, missing: set[str]) -> str:
    """SHA-256 of the weights, without those that the checkpoint lacks: DPT has random ones that it never uses."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if name not in missing:
            digest.update(weight.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
