"""How training images are changed, each in a different way in every epoch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.classification import Classification
from taskrobust.vision.transforms import ColorJitter, Compose, LargeScaleJitter, Mixing, RandAugmentCrop
from taskrobust.vision.transforms.crops import JointCrop, Transform


class Augmentation(ABC):
    """Names how training images are changed. A subclass is a frozen dataclass of plain values."""

    @abstractmethod
    def transform(self, size: int, seed: int) -> Transform:
        """The transform that crops an image and its maps.

        Args:
            size: Side of the crops in pixels.
            seed: Names the stream of random numbers.
        """

    def mixing(self, task: DownstreamTask, seed: int) -> Mixing | None:
        """The mixing of the images of a batch, or None.

        Args:
            task: The downstream task.
            seed: Names the stream of random numbers.
        """
        return None


@dataclass(frozen=True)
class Crops(Augmentation):
    """Random rectangles, resized to a square, half of them mirrored, with other colors.

    Args:
        scale: Smallest and largest share of an image's area.
        ratio: Smallest and largest width over height.
        flip: Probability of mirroring left and right.
        jitter: Largest change of brightness, contrast and saturation. The hue turns by up to a quarter of it.
        gray: Probability of a gray image.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.0
    gray: float = 0.0

    def transform(self, size: int, seed: int) -> Transform:
        """Crops, then colors."""
        crop = JointCrop(size, scale=self.scale, ratio=self.ratio, flip=self.flip, seed=seed)
        return Compose([crop, _colors(self.jitter, self.gray, seed)])


@dataclass(frozen=True)
class LargeScale(Augmentation):
    """Large-scale jittering: images of a tenth to twice their size, cut or padded to a square.

    Args:
        scale: Smallest and largest factor by which an image is resized; at 1 its longer side fills the square.
        flip: Probability of mirroring left and right.
        jitter: Largest change of brightness, contrast and saturation. The hue turns by up to a quarter of it.
        gray: Probability of a gray image.
    """

    scale: tuple[float, float] = (0.1, 2.0)
    flip: float = 0.5
    jitter: float = 0.0
    gray: float = 0.0

    def transform(self, size: int, seed: int) -> Transform:
        """Colors, then size, so that the padding keeps its color."""
        resize = LargeScaleJitter(size, scale=self.scale, flip=self.flip, seed=seed)
        return Compose([_colors(self.jitter, self.gray, seed), resize])


@dataclass(frozen=True)
class RandAugment(Augmentation):
    """Random crops with random operations, then mixed with each other. For classes of color images alone.

    Args:
        magnitude: Strength of the operations, from 0 to 10.
        noise: Standard deviation of the strength.
        scale: Smallest and largest share of an image's area.
        mixup: Parameter of mixup's Beta distribution. 0 leaves mixup out.
        cutmix: Parameter of CutMix's. 0 leaves CutMix out. With either, batches must be of an even size.
    """

    magnitude: int = 9
    noise: float = 0.5
    scale: tuple[float, float] = (0.08, 1.0)
    mixup: float = 0.8
    cutmix: float = 1.0

    def transform(self, size: int, seed: int) -> Transform:
        """Crops and operations."""
        return RandAugmentCrop(size, magnitude=self.magnitude, noise=self.noise, scale=self.scale, seed=seed)

    def mixing(self, task: DownstreamTask, seed: int) -> Mixing | None:
        """Mixup and CutMix, with the label smoothing of the task.

        Raises:
            ValueError: If the task is not to tell classes of images.
        """
        if not isinstance(task, Classification):
            raise ValueError(
                f"Expected Classification or LinearProbe with RandAugment, got {type(task).__name__}. Take Crops or "
                "LargeScale, which move image and maps alike."
            )
        if self.mixup == self.cutmix == 0:
            return None
        smoothing = task.label_smoothing
        return Mixing(task.num_classes, mixup=self.mixup, cutmix=self.cutmix, smoothing=smoothing, seed=seed)


def _colors(jitter: float, gray: float, seed: int) -> ColorJitter:
    return ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=jitter / 4, gray=gray, seed=seed)
