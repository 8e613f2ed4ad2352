"""The optional dependencies: which modules each extra of the distribution brings."""

from importlib.util import find_spec

_TRAIN = ("jsonargparse", "yaml", "rich", "accelerate", "tensorboard", "PIL")
EXTRAS = {
    "train": _TRAIN,
    "nlp": (
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "datasets",
        "pyarrow",
        "nltk",
        "sklearn",
        "scipy",
        *_TRAIN,
    ),
    "vision": (
        "torchvision",
        "timm",
        "transformers",
        "huggingface_hub",
        "safetensors",
        "datasets",
        "pyarrow",
        "h5py",
        "matplotlib",
        "scipy",
        *_TRAIN,
    ),
    "report": ("matplotlib", *_TRAIN),
    "studies": ("scipy", "sklearn", "matplotlib", "pyarrow", *_TRAIN),
}


class MissingExtraError(ModuleNotFoundError):
    """A module that an extra brings is not installed."""


def require(extra: str, user: str) -> None:
    """Check that what an extra brings is installed, without importing it.

    Args:
        extra: Name of the extra.
        user: Name of the subpackage or command that needs it.

    Raises:
        MissingExtraError: If a module is missing.
    """
    missing = next((module for module in EXTRAS[extra] if find_spec(module) is None), None)
    if missing is not None:
        raise MissingExtraError(
            f"{user} needs {missing}, which is not installed: pip install 'taskrobust[{extra}]'.", name=missing
        )
