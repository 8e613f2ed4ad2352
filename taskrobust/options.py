"""The options of a command: from its function's parameters and docstring, the command line and configuration files."""

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace

from taskrobust._names import did_you_mean, find_spelling, snake_case
from taskrobust.paths import config_names, filled_in, find_config

USAGE_ERROR = 2
"""Exit code of a command line that is wrong, as argparse has it."""


class _Parser(ArgumentParser):
    """Exits with the one line that says what is wrong, not after a page of all options."""

    command = ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"error: {message}\n({self.command} --help lists the options.)", file=sys.stderr)
        sys.exit(USAGE_ERROR)


class Options:
    """The options of a command.

    Args:
        name: Name of the command.
        function: The command.
        summary: One sentence about it.
    """

    def __init__(self, name: str, function: Callable[..., Any], summary: str) -> None:
        self.name = name
        self.function = function
        self.parameters = inspect.signature(function).parameters
        _Parser.command = f"taskrobust {name}"  # parsers of parts of the options are made by the library
        self.parser = _Parser(prog=_Parser.command, description=summary, usage=f"taskrobust {name} [OPTIONS]")
        self.parser.add_argument("--config", action="config", help="Configuration file. Options after it override it.")
        self.parser.add_function_arguments(function, as_group=False, skip={"resolved"})
        self._names = {action.dest for action in self.parser._actions}

    def parse(self, words: Iterable[str]) -> Namespace:
        """Parse a command line. Exits with code 2 where it is wrong."""
        try:
            config: Namespace = self.parser.parse_args(self._as_the_parser_wants(list(words)))
            return config
        except ValueError as error:
            self.parser.error(str(error))

    def parse_settings(self, settings: Mapping[str, Any]) -> Namespace:
        """Parse what a configuration file would say."""
        config: Namespace = self.parser.parse_object(self._with_class_names(settings))
        return config

    def call(self, config: Namespace) -> Any:
        """Call the command.

        Raises:
            ValueError: If a setting of data names an environment variable that is not set.
        """
        for name, parameter in self.parameters.items():
            if _class_of(parameter.annotation) is not None and config.get(name) is not None:
                settings = config[name].get("init_args")
                for value in vars(settings).values() if settings else ():
                    if isinstance(value, (str, Path)):
                        filled_in(value)  # before the command imports what takes seconds
        arguments = self.parser.instantiate(config)
        del arguments["config"]
        if "resolved" in self.parameters:
            arguments["resolved"] = yaml.safe_load(self.parser.dump(config))
        return self.function(**arguments)

    def _as_the_parser_wants(self, words: list[str]) -> list[str]:
        """Each option as one word ``--name=value``, checked by its name."""
        first = next(iter(self.parameters), None)
        if words and not words[0].startswith("-") and first is not None:
            words = [f"--{first}", *words]  # words before any option belong to the first one
        options: list[tuple[str, list[str]]] = []
        for word in words:
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                options.append((self._checked(name.replace("-", "_")), [value] if equals else []))
            elif options and word != "-h":
                options[-1][1].append(word)
            else:
                options.append((word, []))
        self._check_settings(options)
        lists: dict[str, list[str]] = {}  # a list may be given in several options
        joined: list[str] = []
        for name, values in options:
            kind = self.parameters[name].annotation if name in self.parameters else None
            if name.startswith("-"):
                joined += [name, *values]
            elif _takes_list(kind):
                if name not in lists:
                    joined.append(name)
                lists.setdefault(name, []).extend(values)
            elif not values:
                joined.append(f"--{name}=true" if kind is bool else f"--{name}")
            else:
                value = self._config(values[0]) if name == "config" else self._value(name, values[0])
                joined += [f"--{name}={value}", *values[1:]]
        kinds = {name: self.parameters[name].annotation for name in lists}
        return [_list_option(word, lists[word], kinds[word]) if word in lists else word for word in joined]

    def _checked(self, name: str) -> str:
        """The name of an option, which must be one, not the beginning of one."""
        if name in self._names or name.split(".")[-1] == "help" or name in ("print_config", "help"):
            return name
        parents = [".".join(name.split(".")[:length]) for length in range(name.count(".") + 1)]
        if any(parent in self._names and not self._is_group(parent) for parent in parents):
            return name  # a setting of a class, which the library checks
        hint = did_you_mean(name, self._named(), prefix="--")
        raise ValueError(f"Expected an option of taskrobust {self.name}, got '--{name}'.{hint}")

    def _check_settings(self, options: list[tuple[str, list[str]]]) -> None:
        """Settings of a class that the command line names: ``--weighting.alpha``."""
        classes = {
            name: cls
            for name, values in options
            if name in self.parameters and values and (base := _class_of(self.parameters[name].annotation)) is not None
            for cls in _subclasses(base)
            if cls.__name__ == find_spelling(values[0], [cls.__name__])
        }
        for name, _ in options:
            option, dot, setting = name.partition(".")
            if dot and option in classes and setting != "help":
                known = list(inspect.signature(classes[option]).parameters)
                if setting.split(".")[0] not in known:
                    raise ValueError(
                        f"Expected a setting of {classes[option].__name__} among {known}, got '--{name}'."
                        f"{did_you_mean(name, [f'{option}.{other}' for other in known], prefix='--')}"
                    )

    def _is_group(self, name: str) -> bool:
        return any(other.startswith(f"{name}.") for other in self._names if not other.endswith(".help"))

    def _named(self) -> list[str]:
        return [name for name in self._names if not name.endswith("help")]

    def _config(self, name: str) -> str:
        """A configuration file, checked, as JSON."""
        path = find_config(name)
        try:
            settings = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"Expected YAML in {path}: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"Expected options by name in {path}, got {type(settings).__name__}.")
        for key in self._keys(settings):
            if key not in self._names:
                hint = did_you_mean(key, self._named())
                raise ValueError(f"Expected options of taskrobust {self.name} in {path}, got {key!r}.{hint}")
        return json.dumps(self._with_class_names(settings))

    def _keys(self, settings: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
        for key, value in settings.items():
            name = f"{prefix}{key}"
            yield name
            if isinstance(value, Mapping) and self._is_group(name):
                yield from self._keys(value, f"{name}.")

    def _value(self, name: str, value: str) -> str:
        option = name.removesuffix(".help")
        base = _class_of(self.parameters[option].annotation) if option in self.parameters else None
        return value if base is None else class_name(base, option, value)

    def _with_class_names(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        named = dict(settings)
        for name, value in settings.items():
            base = _class_of(self.parameters[name].annotation) if name in self.parameters else None
            if base is not None and isinstance(value, str):
                named[name] = class_name(base, name, value)
            elif base is not None and isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
                named[name] = {**value, "class_path": class_name(base, name, value["class_path"])}
        return named


def class_name(base: type, option: str, name: str) -> str:
    """The name of a class of this package for a name in any spelling; a dotted path, JSON and null as they are.

    Args:
        base: The class that it is a subclass of.
        option: The option, for the error.
        name: Such as ``softmax_minimax`` or ``SoftmaxMinimax``.

    Raises:
        ValueError: If there is no such class.
    """
    if "." in name or name.startswith(("{", "[")) or name in ("null", ""):
        return name
    known = [cls.__name__ for cls in _subclasses(base) if cls.__module__.startswith("taskrobust.")]
    spelling = find_spelling(name, known)
    if spelling is not None:
        return spelling
    names = sorted(map(snake_case, known))
    raise ValueError(
        f"Expected a {option} among {names}, or the path of a class such as my_module.MyClass, got {name!r}."
        f"{did_you_mean(snake_case(name), names)}"
    )


def _subclasses(base: type) -> set[type]:
    found: set[type] = set() if inspect.isabstract(base) else {base}
    return found.union(*map(_subclasses, base.__subclasses__()))


def _class_of(kind: Any) -> type | None:
    """The class whose subclasses an option names: that of its type, or the one that it makes."""
    if get_origin(kind) in (Union, UnionType):
        kinds = {_class_of(part) for part in get_args(kind) if part is not NoneType}
        return kinds.pop() if len(kinds) == 1 else None
    if get_origin(kind) is Callable:
        return _class_of(get_args(kind)[-1])
    is_own = inspect.isclass(kind) and kind.__module__.startswith("taskrobust.")
    return kind if is_own and not dataclasses.is_dataclass(kind) else None


def _takes_list(kind: Any) -> bool:
    """Whether a type is a list, or may be one."""
    return get_origin(kind) is list or any(get_origin(part) is list for part in get_args(kind))


def _takes_nothing_else(kind: Any) -> bool:
    """Whether a type is a list, or may be one or None."""
    return get_origin(kind) is list or all(get_origin(part) is list or part is NoneType for part in get_args(kind))


def _list_option(name: str, values: list[str], kind: Any) -> str:
    """``--image a.jpg b.jpg`` as ``--image=["a.jpg", "b.jpg"]``."""
    is_one = len(values) == 1 and (values[0].startswith("[") or not _takes_nothing_else(kind))
    return f"--{name}={values[0] if is_one else json.dumps(values)}"


def config_summaries() -> dict[str, str]:
    """The first line of comment of each configuration that comes with taskrobust, by its name."""
    return {name: Path(find_config(name)).read_text().split("\n", 1)[0].lstrip("# ") for name in config_names()}
