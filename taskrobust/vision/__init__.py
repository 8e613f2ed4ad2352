"""Multi-Modal Mask MAE: a masked autoencoder of images, depth and semantic maps, trained to be robust over them."""

from typing import TYPE_CHECKING, Any

from taskrobust.extras import require

require("vision", __name__)

if TYPE_CHECKING:
    from taskrobust.vision.mae.model import MultiModalMae

__all__ = ["MultiModalMae"]


def __getattr__(name: str) -> Any:
    if name != "MultiModalMae":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from taskrobust.vision.mae.model import MultiModalMae  # takes half a second, which workers that read images save

    return MultiModalMae
