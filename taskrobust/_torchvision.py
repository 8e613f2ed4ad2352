"""Lets the registry's CUDA build of torchvision be imported under a CPU build of torch.

The registry has one torchvision wheel for each platform, linked against CUDA. Under a CPU torch its compiled operators
cannot load and ``import torchvision`` ends with ``operator torchvision::nms does not exist``, which takes timm and most
models of transformers with it. Declaring the schemas of the two operators that are looked up at import time is enough
for everything written in Python: transforms, data sets, models. The compiled operators themselves stay missing.

The declaration must come before the first import of torchvision, in whichever order a program imports its libraries.
So it waits as a finder on ``sys.meta_path``: installed when the interpreter starts (the ``.pth`` file of the wheel) or,
for a checkout that is not installed, when taskrobust is imported. This file imports nothing but the standard library.
"""

import importlib.machinery
import pathlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import ClassVar


class TorchvisionFinder(MetaPathFinder):
    """Declares torchvision's operators when torchvision is about to be imported, then steps aside."""

    library: ClassVar[object] = None  # what is declared lives as long as this reference

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find nothing: the ordinary finders follow."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(fullname, path)
            if spec is not None and spec.origin is not None and _is_cuda_build(pathlib.Path(spec.origin)):
                _declare_operators()
        return None


def _is_cuda_build(package_file: pathlib.Path) -> bool:
    version_file = package_file.with_name("version.py")
    return version_file.exists() and "+cu" in version_file.read_text()


def _declare_operators() -> None:
    import torch

    declared = hasattr(torch.ops.torchvision, "nms")
    if declared or torch.version.cuda is not None or torch.version.hip is not None:
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    TorchvisionFinder.library = library


def install() -> None:
    """Put the finder in front, once in a process."""
    waiting = any(type(finder).__name__ == TorchvisionFinder.__name__ for finder in sys.meta_path)
    if not waiting and "torchvision" not in sys.modules:
        sys.meta_path.insert(0, TorchvisionFinder())


install()
