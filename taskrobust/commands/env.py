import os
import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("taskrobust", "torch", "numpy", "transformers", "tokenizers", "datasets", "accelerate", "nltk", "timm")


def env() -> None:
    """Print the versions of taskrobust and its dependencies, and the available devices."""
    import torch

    print(f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} processors")
    for package in _PACKAGES:
        print(f"{package} {_version(package)}")
    print(f"torch was built for {_build()}, runs {torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        print(f"cuda:{number} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _build() -> str:
    import torch

    if torch.version.cuda is not None:
        return f"CUDA {torch.version.cuda}"
    return f"HIP {torch.version.hip}" if torch.version.hip is not None else "the CPU"
