"""Settings as people write them: the names of options, and of the classes that they choose."""

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from taskrobust._io.trust import check_import, is_stored
from taskrobust._names import did_you_mean, find_spelling, snake_case
from taskrobust.cli.kinds import class_of, classes, group_of, in_words, item_of, members, settings_of, takes_several


class UsageError(ValueError):
    """A command line or a configuration that a command does not understand."""


class Settings:
    """Settings of configuration files and a command line, in the order in which they are read.

    Args:
        command: Name of the command.
        parameters: The parameters of its function.
        names: Names of all options that do not depend on a class.
    """

    def __init__(self, command: str, parameters: Mapping[str, inspect.Parameter], names: Sequence[str]) -> None:
        self._command = command
        self._kinds = {"config": Path} | {name: p.annotation for name, p in parameters.items()}
        self._names = [name for name in names if name.split(".")[-1] not in ("help", "print_config")]
        self._classes: dict[str, type | None] = {}
        self._files: dict[str, Path | None] = {}
        for name, parameter in parameters.items():
            default = parameter.default
            if class_of(parameter.annotation) is not None and default not in (None, parameter.empty):
                self._classes[name] = default if inspect.isclass(default) else type(default)

    def read(self, values: Mapping[str, Any], file: Path | None = None) -> dict[str, Any]:
        """Check the names in a configuration, and replace those of classes by their paths.

        Args:
            values: The configuration.
            file: The file that it is from.

        Raises:
            UsageError: If an option or a class is unknown.
        """
        return {key: self.value(key, value, self.kind_of(key, file), file) for key, value in values.items()}

    def kind_of(self, name: str, file: Path | None = None) -> Any:
        """The type of an option. ``Any`` if that depends on a class that is not known here.

        Args:
            name: Such as ``loop.steps``, or ``weighting.alpha``, a setting of the class that was chosen.
            file: The configuration that names it. None is the command line.

        Raises:
            UsageError: If there is no such option.
        """
        kinds: Mapping[str, Any] | None = self._kinds
        kind, parent = None, ""
        for key in name.split("."):
            if parent and key in ("class_path", "init_args") and class_of(kind) is not None:
                continue
            if parent:
                kinds = self._below(parent, kind, key)
            if kinds is None:
                return Any
            if key not in kinds:
                raise UsageError(self._unknown(name, parent, kind, kinds, file))
            kind, parent = kinds[key], f"{parent}.{key}" if parent else key
        return kind

    def value(self, name: str, value: Any, kind: Any, file: Path | None = None) -> Any:
        """Check the names in a value, and replace those of classes by their paths.

        Args:
            name: The option.
            value: Its value, as YAML has it.
            kind: Its type.
            file: The configuration that it is from. None is the command line.

        Raises:
            UsageError: If a setting or a class is unknown.
        """
        self._files[name] = file
        if isinstance(value, list) and takes_several(kind):
            item = next(get_args(member)[0] for member in members(kind) if get_origin(member) in (list, tuple))
            return [self._listed(name, each, item, file) if class_of(item) is not None else each for each in value]
        is_class = class_of(kind) is not None
        if is_class and isinstance(value, str):
            return self._path(name, value, kind, file)
        group = group_of(kind)
        if not isinstance(value, Mapping):
            if group is not None and not (value is None and NoneType in members(kind)):
                raise UsageError(f"Expected the settings of {name} by name, got {value!r}{_within(file)}.")
            return value
        if not is_class and inspect.isclass(kind) and isinstance(value.get("class_path"), str):
            if file is not None and is_stored(file):  # a class of another package, which the parser checks
                check_import(value["class_path"].rpartition(".")[0], str(file))
            return value
        if not is_class or "class_path" not in value:
            return self._inside(name, value, file)
        strange = [key for key in value if key not in ("class_path", "init_args")]
        if strange:
            raise UsageError(f"Expected class_path and init_args for {name}, got {strange[0]!r}{_within(file)}.")
        read = {"class_path": self._path(name, str(value["class_path"]), kind, file)}
        return read | {key: self._inside(name, inner, file) for key, inner in value.items() if key == "init_args"}

    def choose(self, name: str, spelling: str, kind: Any) -> type:
        """The class that a name means.

        Raises:
            UsageError: If there is none.
        """
        self._path(name, spelling, kind, None)
        cls = self._classes[name]
        if cls is None:
            raise UsageError(f"Expected the path of a class for --{name}, got {spelling!r}, which cannot be imported.")
        return cls

    def where(self, name: str) -> str:
        """The configuration that set an option, for an error: `` in FILE``, or nothing."""
        while name and name not in self._files:
            name = name.rpartition(".")[0]
        return _within(self._files.get(name))

    def _listed(self, name: str, value: Any, kind: Any, file: Path | None) -> Any:
        """An item of a list of classes, whose settings the parser checks."""
        if isinstance(value, str):
            return self._path(name, value, kind, file)
        if isinstance(value, Mapping) and "class_path" in value:
            return {**value, "class_path": self._path(name, str(value["class_path"]), kind, file)}
        return value

    def _inside(self, name: str, values: Any, file: Path | None) -> Any:
        if not isinstance(values, Mapping):
            return values
        strange = [key for key in values if not isinstance(key, str)]
        if strange:
            raise UsageError(f"Expected names of settings in {name}, got {strange[0]!r}{_within(file)}.")
        names = {key: f"{name}.{key}" for key in values}
        return {
            key: self.value(names[key], value, self.kind_of(names[key], file), file) for key, value in values.items()
        }

    def _below(self, name: str, kind: Any, key: str) -> Mapping[str, Any] | None:
        """The options inside of an option, by name with their types. None if they are unknown here."""
        item, cls = item_of(kind), group_of(kind)
        if item is not None:
            return {key: item}
        if class_of(kind) is not None:
            cls = self._classes.get(name)
            return None if cls is None else settings_of(kind, cls)
        if cls is not None:
            return settings_of(kind, cls)
        return None if kind in (Any, dict) else {}

    def _path(self, name: str, spelling: str, kind: Any, file: Path | None) -> str:
        """The path of the class that a name means, which is remembered for its settings."""
        base = class_of(kind)
        assert base is not None
        if "." in spelling:  # it is a path already
            if not all(part.isidentifier() for part in spelling.split(".")):
                raise UsageError(
                    f"Expected the path of a class such as my_module.MyClass for {name}, got {spelling!r}."
                )
            if file is not None and is_stored(file):
                check_import(spelling.rpartition(".")[0], str(file))
            self._classes[name] = _imported(spelling, name, base)
            return spelling
        known = classes(base)
        found = find_spelling(spelling, known)
        if found is None:
            others = [member for member in members(kind) if class_of(member) is None and member is not NoneType]
            what = name if "." in name else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
            plain = "".join(f", or {in_words(other)}" for other in others)
            raise UsageError(
                f"Expected {what} among {list(known)}, or the path of a class such as my_module.MyClass{plain}, "
                f"got {spelling!r}{_within(file)}.{did_you_mean(snake_case(spelling), known)}"
            )
        self._classes[name] = known[found]
        return f"{known[found].__module__}.{known[found].__qualname__}"

    def _unknown(self, name: str, parent: str, kind: Any, kinds: Mapping[str, Any], file: Path | None) -> str:
        """The error for an option that does not exist."""
        dashes = "--" if file is None else ""
        siblings = [f"{parent}.{key}" if parent else key for key in kinds]
        cls = self._classes.get(parent)
        if cls is not None and class_of(kind) is not None:
            hint = did_you_mean(name, siblings, prefix=dashes)
            expected = f"a setting of {cls.__name__} among {list(kinds)}"
            return f"Expected {expected}, got '{dashes}{name}'{_within(file)}.{hint}"
        hint = did_you_mean(name, [*siblings, *self._names], prefix=dashes)
        return f"Expected options of taskrobust {self._command}{_within(file)}, got '{dashes}{name}'.{hint}"


def _within(file: Path | None) -> str:
    return "" if file is None else f" in {file}"


def _imported(path: str, option: str, base: type) -> type | None:
    """A subclass of ``base`` by its path. None if it cannot be imported; the parser then reports why.

    Raises:
        UsageError: If it is something else, such as a function.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return None
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise UsageError(f"Expected a subclass of {base.__name__} for {option}, got {path}, which is {found!r}.")
    return found
