"""Settings in the plain values of a configuration file, and which of them may change between the processes of a run."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, get_args, get_origin

MAY_CHANGE: Final = "may change while the results stay the same"
"""Marks a setting of how something is computed or observed, as in ``Annotated[int, MAY_CHANGE]``."""


@dataclass(frozen=True)
class Range:
    """Marks the values that a number may have, as in ``Annotated[int, Range(1)]``. They are finite.

    Args:
        least: The smallest value.
        most: The largest value.
        open: Whether ``least`` itself is excluded.
        below: Whether ``most`` itself is excluded.
    """

    least: float
    most: float = math.inf
    open: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.least if self.open else value >= self.least
        return above and (value < self.most if self.below or self.most == math.inf else value <= self.most)

    def __str__(self) -> str:
        bounds = [f"{'above' if self.open else 'of at least'} {self.least:g}"]
        if self.most < math.inf:
            bounds.append(f"{'below' if self.below else 'at most'} {self.most:g}")
        return " and ".join(bounds)


AT_LEAST_0: Final = Range(0)
AT_LEAST_1: Final = Range(1)
SHARE: Final = Range(0, 1)
PROBABILITY: Final = Range(0, 1, below=True)


def range_of(kind: Any) -> Range | None:
    """The range of a type annotation, if it has one."""
    if get_origin(kind) is Annotated:
        return next((mark for mark in get_args(kind)[1:] if isinstance(mark, Range)), None)
    inner = (range_of(part) for part in get_args(kind))  # as of Annotated[...] | None
    return next((found for found in inner if found is not None), None)


@dataclass
class Checked:
    """Base of dataclasses whose annotated ranges are checked.

    Raises:
        ValueError: If a number is out of its range. The error names the option, the value and the range.
    """

    group: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_range(f"{self.group}.{field.name}", getattr(self, field.name), field.type)


def check_range(option: str, value: Any, kind: Any) -> None:
    """Check a value, or each of several, against the range of its type.

    Raises:
        ValueError: If it is out of its range.
    """
    allowed = range_of(kind)
    values = value if isinstance(value, (list, tuple)) else [value]
    if allowed is not None and not all(one in allowed for one in values if one is not None):
        raise ValueError(f"Expected a value {allowed} for {option}, got {value}.")


def check_same_settings(
    place: Path, there: Mapping[str, Any], here: Mapping[str, Any], ignored: Iterable[str] = ()
) -> None:
    """Check that something is continued with the settings with which it was started.

    Args:
        place: The folder or file.
        there: The settings it was made with, nested mappings of plain values.
        here: Those of now.
        ignored: Settings that may change, with dots between the levels.

    Raises:
        ValueError: If others differ. It names them and both values.
    """
    changed = differences(there, here, ignored)
    if changed:
        raise ValueError(
            f"{place} was made with other settings: {'; '.join(changed)}. "
            "Choose another folder, or the settings with which this one was made."
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any], ignored: Iterable[str] = ()) -> list[str]:
    """The settings that differ, one phrase per setting.

    Args:
        there: Nested mappings of plain values.
        here: The same.
        ignored: Settings that may differ, with dots between the levels.
    """
    old, new = flatten(there), flatten(here)
    ignored = set(ignored)
    return [
        f"{key} is {old.get(key)!r} there and {new.get(key)!r} here"
        for key in sorted(old.keys() | new.keys())
        if not _equal(old.get(key), new.get(key)) and key not in ignored
    ]


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)  # NaN is the setting that it was


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as a flat one, with dots between the levels."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def changeable(function: Callable[..., Any], settings: Mapping[str, Any]) -> set[str]:
    """The settings of a function that are marked ``MAY_CHANGE``, in its dataclasses and in the classes it is given.

    Args:
        function: A function or class.
        settings: Its settings in plain values. Classes are given as ``class_path`` and ``init_args``.

    Returns:
        Names with dots between the levels.
    """
    return {name for name, parameter in _parameters(function, settings, "") if MAY_CHANGE in _marks(parameter)}


def defaults(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The default values of the settings of a function, by name with dots between the levels, for those that have one.

    Args:
        function: A function or class.
        settings: Its settings in plain values.
    """
    found: dict[str, Any] = {}
    for name, parameter in _parameters(function, settings, ""):
        if parameter.default is not parameter.empty:
            value = plain(parameter.default)
            found |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _marks(parameter: inspect.Parameter) -> Sequence[Any]:
    return get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()


def _parameters(
    function: Callable[..., Any], settings: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, inspect.Parameter]]:
    """The settings of a function and of what it is given, by name with dots between the levels, outer ones first."""
    fields = dataclasses.fields(function) if dataclasses.is_dataclass(function) else ()
    factories = {field.name for field in fields if field.default_factory is not dataclasses.MISSING}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in factories:
            parameter = parameter.replace(default=parameter.empty)
        kind, value = parameter.annotation, settings.get(name)
        if name == "run":  # whose fields are settings themselves
            yield from _parameters(kind, settings, prefix)
            continue
        yield f"{prefix}{name}", parameter
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        if not isinstance(value, Mapping):
            continue
        if isinstance(value.get("class_path"), str):
            module, _, cls = value["class_path"].rpartition(".")
            arguments = value.get("init_args") or {}
            yield from _parameters(getattr(import_module(module), cls), arguments, f"{prefix}{name}.init_args.")
        for member in (kind, *get_args(kind)):
            if dataclasses.is_dataclass(member):
                yield from _parameters(member, value, f"{prefix}{name}.")  # type: ignore[arg-type]


def recorded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a command in plain values, as its configuration file would have them.

    Args:
        arguments: The arguments of its function by name. The fields of ``run`` are settings themselves.
    """
    settings: dict[str, Any] = {name: plain(value) for name, value in arguments.items() if name != "resolved"}
    run: dict[str, Any] = settings.pop("run", {})
    return settings | run


def plain(value: Any) -> Any:
    """A setting in the plain values of a configuration file.

    Instances become the path of their class with the settings that its constructor names, functions and classes their
    path.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, partial):
        return {"class_path": _path(value.func), "init_args": plain(value.keywords)}
    if inspect.isroutine(value) or inspect.isclass(value):
        return {"class_path": _path(value)}
    names = inspect.signature(type(value)).parameters
    return {
        "class_path": _path(type(value)),
        "init_args": {name: plain(getattr(value, name)) for name in names if hasattr(value, name)},
    }


def _path(item: Any) -> str:
    return f"{item.__module__}.{item.__qualname__}"
