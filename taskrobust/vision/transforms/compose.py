"""Several transforms as one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taskrobust.training.data import Key
from taskrobust.vision.transforms.crops import Transform

if TYPE_CHECKING:
    from torchvision.tv_tensors import TVTensor


class Compose:
    """Applies transforms one after the other.

    Args:
        transforms: The transforms, the first one first.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, maps: "Mapping[str, TVTensor]", key: Key) -> "dict[str, TVTensor]":
        """Transform.

        Args:
            maps: The maps of a sample by name, [C, H, W] each.
            key: Index of the sample, and epoch.
        """
        transformed = dict(maps)
        for transform in self.transforms:
            transformed = transform(transformed, key)
        return transformed
