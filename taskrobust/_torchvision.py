"""Lets a CUDA build of torchvision be imported under a CPU build of torch.

The package index has one torchvision wheel for each platform, linked against CUDA. Under a CPU torch its compiled
operators cannot load and ``import torchvision`` ends with ``operator torchvision::nms does not exist``, which takes
timm and most models of transformers with it. Declaring the schemas of the two operators that are looked up at import
time is enough for everything written in Python: transforms, data sets, models. The compiled operators stay missing.

The declaration must come before torchvision is imported, but torch need not be imported for it until then. So it waits
as a finder on ``sys.meta_path``, which ``import taskrobust`` installs. An import of torchvision that has failed before
succeeds when it is repeated. Where builds match, nothing is declared.
"""

import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType


class TorchvisionFinder(MetaPathFinder):
    """Finds torchvision where it is, with a loader that declares its operators if they cannot load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find torchvision, and leave other modules to the ordinary finders."""
        spec = PathFinder.find_spec(fullname, path) if fullname == "torchvision" else None
        if spec is not None and spec.origin is not None:
            spec.loader = _TorchvisionLoader(fullname, spec.origin)
        return spec


class _TorchvisionLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        build = _build(Path(self.path))
        if "+cu" in build:
            _declare_operators()
        try:
            super().exec_module(module)
        except RuntimeError as error:
            import torch

            index = torch.__version__.partition("+")[2]  # cpu, cu130: where its builds are, too
            option = f" --index-url https://download.pytorch.org/whl/{index}" if index else ""
            raise ImportError(
                f"torchvision {build} does not load under torch {torch.__version__}: {error}\n"
                f"Install builds that match: pip install --force-reinstall torch torchvision{option}"
            ) from error


def _build(package_file: Path) -> str:
    """The version with the build, such as 0.28.0+cu130, which torchvision's metadata leave out."""
    version_file = package_file.with_name("version.py")
    version = re.search(r"__version__ = ['\"](.+)['\"]", version_file.read_text()) if version_file.exists() else None
    return version[1] if version is not None else ""


_declared: list[object] = []  # a declaration lives as long as this reference


def _declare_operators() -> None:
    import torch

    declared = hasattr(torch.ops.torchvision, "nms")
    if declared or torch.version.cuda is not None or torch.version.hip is not None:
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)


def install() -> None:
    """Put the finder in front, once in a process, unless torchvision is imported already."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())


install()
