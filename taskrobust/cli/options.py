"""The options of a command: from its function's parameters and docstring, the command line and configuration files."""

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from taskrobust._io.paths import config_names, expand_variables, find_config
from taskrobust._io.settings import check_range, flatten, plain
from taskrobust._io.trust import trust
from taskrobust._names import find_spelling
from taskrobust.cli.help import HelpFormatter, arrange, introduction, summary
from taskrobust.cli.kinds import (
    class_of,
    classes,
    given_by_caller,
    group_of,
    in_words,
    parameters_of,
    takes_one,
    takes_several,
)
from taskrobust.cli.settings import Settings, UsageError

_CONFIG_HELP = (
    "Configuration file. Options after it override it. A configuration of a run folder may only name classes of "
    "taskrobust, unless --trust is given."
)


class Options:
    """The options of a command.

    Args:
        name: Name of the command.
        function: The command.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self.parameters = parameters_of(function)
        self._run = inspect.signature(function).parameters.get("run")
        self.parser = ArgumentParser(
            prog=f"taskrobust {name}",
            description=introduction(function),
            formatter_class=HelpFormatter,
            exit_on_error=False,
            add_help=False,
        )
        self.parser.add_argument("--config", action="config", help=_CONFIG_HELP)
        self.parser.add_function_arguments(function, as_group=False, skip={"resolved", "run"})
        if self._run is not None:
            self.parser.add_class_arguments(self._run.annotation, as_group=False)
            self.parser.set_defaults(flatten(plain(self._run.default)))
        self.parser.add_argument("-h", "--help", action="help", help="Show this help.")
        self._first = next(iter(self.parameters), None)
        self.parser.usage = self._usage()
        arrange(self.parser)

    def parse(self, words: Iterable[str]) -> Namespace:
        """Parse a command line.

        Raises:
            UsageError: If it is wrong.
        """
        settings = self._settings()
        return self._parsed(self.parser.parse_args, self._as_the_parser_wants(list(words), settings), settings)

    def parse_settings(self, values: Mapping[str, Any]) -> Namespace:
        """Parse the contents of a configuration file.

        Raises:
            UsageError: If it is wrong.
        """
        settings = self._settings()
        return self._parsed(self.parser.parse_object, settings.read(values), settings)

    def call(self, config: Namespace) -> Any:
        """Call the command.

        Raises:
            ValueError: If a number is out of its range, or a setting of data names a variable that is not set.
        """
        for name, parameter in self.parameters.items():
            check_range(name, config.get(name), parameter.annotation)
            if class_of(parameter.annotation) is not None and config.get(name) is not None:
                settings = config[name].get("init_args")
                for value in vars(settings).values() if settings else ():
                    if isinstance(value, (str, Path)):
                        expand_variables(value)  # before the command imports what takes seconds
        arguments = self._instantiated(config)
        del arguments["config"]
        if self._run is not None:
            names = inspect.signature(self._run.annotation).parameters
            arguments["run"] = self._run.annotation(**{name: arguments.pop(name) for name in names})
            arguments["resolved"] = yaml.safe_load(self.parser.dump(config))
        return self.function(**arguments)

    def _instantiated(self, config: Namespace) -> dict[str, Any]:
        try:
            return dict(self.parser.instantiate(config))
        except Exception as error:  # whatever the constructor of a class raises
            made = [name.removesuffix(".class_path") for name, _ in config.items() if name.endswith(".class_path")]
            reasons = re.findall(r"^  - (.*)", str(error), re.MULTILINE)  # of each member of a union
            if reasons:
                reason = next(each for each in reasons if "NoneType" not in each)
                raise ValueError(reason) from error
            if isinstance(error, (TypeError, AttributeError)):
                raise ValueError(f"Expected other settings of one of {', '.join(made)}: {error}.") from error
            raise

    def _settings(self) -> Settings:
        return Settings(self.name, self.parameters, [action.dest for action in self.parser._actions])

    def _usage(self) -> str:
        words = []
        for dest in (action.dest for action in self.parser._actions if action.required):
            value = dest.rpartition(".")[2].upper()
            if dest in self.parameters and takes_several(self.parameters[dest].annotation):
                value += " ..."
            words.append(value if dest == self._first else f"--{dest} {value}")
        return " ".join([self.parser.prog, *words, "[OPTIONS]"])

    def _parsed(self, parse: Callable[[Any], Namespace], values: Any, settings: Settings) -> Namespace:
        try:
            return parse(values)
        except ArgumentError as error:
            raise UsageError(_sentence(str(error), settings)) from error

    def _as_the_parser_wants(self, words: list[str], settings: Settings) -> list[str]:
        """Each option as one word ``--name=value``, its name and the classes that it names checked."""
        options: list[tuple[str, Any, list[str]]] = []
        lists: dict[str, list[str]] = {}
        by_option = self._by_option(words)
        if ("trust", []) in by_option:
            trust()
        for name, values in by_option:
            if name == "trust":
                continue
            if name in ("help", "print_config"):
                options.append((name, None, values))
            elif name.endswith(".help"):
                self._print_settings(name.removesuffix(".help"), values, settings)
            elif name == "config":
                options.append((name, None, [_config(_the_one(name, values), settings)]))
            elif name in lists:  # which may be given in several options
                lists[name] += values
            else:
                kind = settings.kind_of(name.removesuffix("+"))
                if takes_several(kind):
                    lists[name] = values
                    settings.value(name, values, kind)
                elif kind is bool and not values:  # a switch alone is on
                    values = ["true"]
                else:
                    values = [_value(name, _the_one(name, values), kind, settings)]
                options.append((name, kind, values))
        return ["=".join([f"--{name}", *_joined(values, kind)]) for name, kind, values in options]

    def _by_option(self, words: list[str]) -> list[tuple[str, list[str]]]:
        """The words that follow each option."""
        if words and not words[0].startswith("-") and self._first is not None:
            words = [f"--{self._first}", *words]  # words before any option belong to the first one
        given: list[tuple[str, list[str]]] = []
        for word in words:
            if word == "-h":
                given.append(("help", []))
            elif re.match("--.", word):
                name, equals, value = word[2:].partition("=")
                given.append((name.replace("-", "_"), [value] if equals else []))
            elif given and not re.match("-[a-zA-Z-]", word):
                given[-1][1].append(word)
            else:
                raise UsageError(f"Expected an option of taskrobust {self.name}, got {word!r}.")
        return given

    def _print_settings(self, name: str, values: list[str], settings: Settings) -> None:
        """Print the classes that an option may choose, or the settings of one, and exit."""
        kind = settings.kind_of(name)
        base, chosen = class_of(kind), group_of(kind)
        known = {} if base is None else classes(base)
        if base is None and chosen is None:
            raise UsageError(f"Expected an option that has settings, got '--{name}.help': it is {in_words(kind)}.")
        if not values and len(known) > 1:
            width = max(map(len, known))
            print(f"usage: taskrobust {self.name} --{name} NAME\n")
            print(*(f"  {spelling:<{width}}  {summary(cls)}" for spelling, cls in known.items()), sep="\n")
            print(f"\n--{name}.help NAME lists the settings of one.")
            self.parser.exit(0)
        spelling = [*values, *known][0] if base is not None else ""
        chosen = chosen or settings.choose(name, spelling, kind)
        option = f"--{name} {find_spelling(spelling, known) or spelling}".strip()
        parser = ArgumentParser(
            usage=f"taskrobust {self.name} {option} [OPTIONS]",
            description=introduction(chosen),
            formatter_class=HelpFormatter,
            add_help=False,
        )
        parser.add_class_arguments(chosen, name, skip={given_by_caller(kind)}, as_group=False)
        arrange(parser)
        print(parser.format_help(), end="")
        self.parser.exit(0)


def _config(name: str, settings: Settings) -> str:
    """The checked contents of a configuration file, in one line."""
    path = find_config(name)
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"Expected YAML in {path}{_yaml_problem(error)}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"Expected options by name in {path}, got {type(values).__name__}.")
    return _one_line(settings.read(values, path))


def _yaml_problem(error: Exception) -> str:
    """Place and kind of an error in a YAML file, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f", line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return f": {str(error).splitlines()[0]}"


def _the_one(name: str, values: list[str]) -> str:
    if len(values) != 1:
        raise UsageError(f"Expected one value for --{name}, got {' '.join(map(repr, values)) or 'none'}.")
    return values[0]


def _value(name: str, word: str, kind: Any, settings: Settings) -> str:
    """A word of the command line, the classes that it names as the parser wants them."""
    try:
        given = yaml.safe_load(word)
    except yaml.YAMLError:
        given = word
    checked = settings.value(name, given, kind)
    if isinstance(given, Mapping):
        return _one_line(checked)
    return word if checked is given else str(checked)


def _joined(values: list[str], kind: Any) -> list[str]:
    """The words of a list as one: ``--image a.jpg b.jpg`` is ``--image=["a.jpg", "b.jpg"]``."""
    is_whole = len(values) == 1 and (values[0].startswith("[") or values[0] == "null" or takes_one(kind))
    return values if is_whole or not takes_several(kind) else [json.dumps(values, ensure_ascii=False)]


def _one_line(values: Any) -> str:
    text: str = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.strip()


def _sentence(message: str, settings: Settings) -> str:
    """An error of the parser as one sentence that names the option, the expected and the given value."""
    name = ".".join(re.findall(r'Parser key "(.*?)"', message))
    where = settings.where(name)
    missing = re.search(r"arguments are required: (.*)", message)
    if missing is not None:
        options = [f"--{name}.{option}" if name else f"--{option}" for option in missing[1].split(", ")]
        return f"Expected {', '.join(options)}, which {'is' if len(options) == 1 else 'are'} required."
    got = re.search(r"(?:Given|Got) value: (.*?)(?:\. Got value:.*)?$", message, re.MULTILINE)
    if got is not None and re.search(r"Expected a (?!dot import)", message):
        value = got[1] if got[1].startswith("[") else repr(got[1])
        return f"Expected {in_words(settings.kind_of(name))} for {name}, got {value}{where}."
    wrong = re.search(r"class_path '(.*?)':\s+(.*)", message)
    if wrong is not None:
        return f"Expected a class for {name}, got {wrong[1]!r}{where}: {wrong[2].rstrip('.')}."
    return f"{' '.join(message.split())}{where}"


def config_summaries() -> dict[str, str]:
    """The first line of comment of each configuration that comes with taskrobust, by its name."""
    return {name: Path(find_config(name)).read_text().split("\n", 1)[0].lstrip("# ") for name in config_names()}
