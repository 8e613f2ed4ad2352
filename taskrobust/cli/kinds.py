"""Types of parameters, and the values they allow."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from taskrobust._names import snake_case

_PLAIN = {int: "int", float: "float", str: "str", bool: "true or false", Path: "path", NoneType: "null"}


def members(kind: Any) -> tuple[Any, ...]:
    """The types that a value may have: those of a union, or the one, without annotations."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(member for part in get_args(kind) for member in members(part))
    return (kind,)


def class_of(kind: Any) -> type | None:
    """The class of this package whose subclasses a value names: one of the type's, or the one that it makes."""
    for member in members(kind):
        if get_origin(member) is Callable:
            member = get_args(member)[-1]
        if _is_own(member) and not dataclasses.is_dataclass(member):
            return member  # type: ignore[no-any-return]
    return None


def group_of(kind: Any) -> type | None:
    """The dataclass whose fields are the settings of an option."""
    for member in members(kind):
        if _is_own(member) and dataclasses.is_dataclass(member):
            return member  # type: ignore[return-value]
    return None


def settings_of(kind: Any, cls: type) -> dict[str, Any] | None:
    """The settings of a class by name, with their types. None if it accepts any.

    Args:
        kind: The type of the option. A function's arguments are not settings of the class that it makes.
        cls: The class.
    """
    parameters = list(inspect.signature(cls).parameters.values())[given_by_caller(kind) :]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name: parameter.annotation for parameter in parameters}


def given_by_caller(kind: Any) -> int:
    """How many arguments of a class the command gives: those of the function that makes it."""
    functions = [member for member in members(kind) if get_origin(member) is Callable]
    return len(get_args(functions[0])[0]) if functions else 0


def item_of(kind: Any) -> Any:
    """The type of the values of a mapping, None if it is not one."""
    for member in members(kind):
        origin = get_origin(member)
        if inspect.isclass(origin) and issubclass(origin, Mapping):
            return get_args(member)[1]
    return None


def takes_several(kind: Any) -> bool:
    """Whether a value is a list or a tuple, or may be one."""
    return any(get_origin(member) in (list, tuple) for member in members(kind))


def takes_one(kind: Any) -> bool:
    """Whether a value may be a single one, other than null."""
    return any(get_origin(member) not in (list, tuple) and member is not NoneType for member in members(kind))


def subclasses(base: type) -> set[type]:
    """A class and those below it that are imported, without abstract ones."""
    found: set[type] = set() if inspect.isabstract(base) else {base}
    return found.union(*map(subclasses, base.__subclasses__()))


def classes(base: type) -> dict[str, type]:
    """The classes of this package that a value may name, by their names in options."""
    own = {snake_case(cls.__name__): cls for cls in subclasses(base) if _is_own(cls)}
    return dict(sorted(own.items()))


def in_words(kind: Any, without_null: bool = False) -> str:
    """The type as help and errors name it.

    Example:
        >>> in_words(int | None), in_words(tuple[float, float]), in_words(Literal["a", "b"])
        ('int or null', 'list of 2 float', 'a or b')
    """
    kinds = [member for member in members(kind) if not (without_null and member is NoneType)]
    return " or ".join(map(_one_in_words, kinds))


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a command. The fields of ``run`` are parameters themselves, ``resolved`` is none."""
    found: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "run":
            fields = inspect.signature(parameter.annotation).parameters
            found |= {field: own.replace(default=getattr(parameter.default, field)) for field, own in fields.items()}
        elif name != "resolved":
            found[name] = parameter
    return found


def _one_in_words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is list:
        return f"list of {in_words(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)} {in_words(inner[0])}"
    cls = class_of(kind) or group_of(kind) or origin or kind
    return snake_case(getattr(cls, "__name__", str(cls))).replace("_", " ")


def _is_own(kind: Any) -> bool:
    return inspect.isclass(kind) and kind.__module__.startswith("taskrobust.")
