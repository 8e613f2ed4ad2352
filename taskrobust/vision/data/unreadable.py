from typing import TYPE_CHECKING

from taskrobust.vision.data.base import Images

if TYPE_CHECKING:
    from accelerate import Accelerator


def report_unreadable(name: str, images: Images, accelerator: "Accelerator") -> None:
    """Say how many files of any rank could not be read. Called by all ranks."""
    if images.unreadable is not None:
        on_ranks = accelerator.reduce(images.unreadable.int().to(accelerator.device))
        accelerator.print(
            f"Files of {name} images that could not be read and were left out: {int((on_ranks > 0).sum())}."
        )
