"""Modalities as plain values, as a saved configuration holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from importlib import import_module
from typing import Any

from taskrobust.vision.modalities.base import Modality


def to_plain(modalities: Mapping[str, Modality]) -> list[dict[str, Any]]:
    """Name, class and fields of each modality. A list, as their order is that of the tasks and JSON may sort keys."""
    return [
        {
            "name": name,
            "class_path": f"{type(modality).__module__}:{type(modality).__qualname__}",
            "init_args": asdict(modality),  # type: ignore[call-overload]
        }
        for name, modality in modalities.items()
    ]


def from_plain(entries: Sequence[Mapping[str, Any]]) -> dict[str, Modality]:
    """The modalities that ``to_plain`` wrote down.

    Raises:
        ValueError: If a class cannot be imported or is no modality.
    """
    return {entry["name"]: _class_at(entry["class_path"])(**entry["init_args"]) for entry in entries}


def _class_at(path: str) -> type[Modality]:
    module, _, name = path.partition(":")
    try:
        found = reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Expected a modality at {path!r}, found none. Install the package that holds it.") from error
    if not (isinstance(found, type) and issubclass(found, Modality)):
        raise ValueError(f"Expected a modality at {path!r}, got {found!r}.")
    return found
