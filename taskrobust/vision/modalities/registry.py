"""Modalities as plain values, as a saved configuration holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from importlib import import_module
from typing import Any

from taskrobust._io.trust import check_import
from taskrobust.vision.modalities.base import Modality


def to_plain(modalities: Mapping[str, Modality]) -> list[dict[str, Any]]:
    """Name, class and fields of each modality. A list, as their order is that of the tasks and JSON may sort keys."""
    return [{"name": name, **plain(modality)} for name, modality in modalities.items()]


def plain(settings: Any) -> dict[str, Any]:
    """Class and fields of a modality or a task."""
    cls = type(settings)
    return {"class_path": f"{cls.__module__}:{cls.__qualname__}", "init_args": asdict(settings)}


def from_plain(entries: Sequence[Mapping[str, Any]]) -> dict[str, Modality]:
    """The modalities that ``to_plain`` wrote down.

    Raises:
        ValueError: If a class cannot be imported or is no modality.
    """
    return {
        entry["name"]: class_at(entry["class_path"], Modality, "modality")(**entry["init_args"]) for entry in entries
    }


def class_at(path: str, base: type, kind: str) -> Any:
    """Import the subclass of ``base``, in errors called ``kind``, at module:name.

    Raises:
        ValueError: If there is none, or it may not be imported.
    """
    module, _, name = path.partition(":")
    check_import(module, "the configuration of a model")
    try:
        found = reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Expected a {kind} at {path!r}, found none. Install the package that contains it.") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"Expected a {kind} at {path!r}, got {found!r}.")
    return found
