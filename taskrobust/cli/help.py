"""How the help of a command is laid out."""

import inspect
import textwrap
from argparse import SUPPRESS, Action
from types import NoneType
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from taskrobust._io.settings import range_of
from taskrobust._names import snake_case
from taskrobust.cli.kinds import class_of, classes, in_words


class HelpFormatter(DefaultHelpFormatter):
    """Names types and classes as one types them, and lists the classes of a kind once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._listed: dict[type, str] = {}

    def _get_help_string(self, action: Action) -> str:
        text = (action.help or "").replace("``", "`")
        kind = getattr(action, "_typehint", None)
        if kind is None:
            return text
        base = class_of(kind)
        if base is not None:
            text += f" {self._choices(base, action.dest)}"
        notes = ["required"] if action.required else []
        lists_choices = isinstance(action.metavar, str) and action.metavar.startswith("{")
        notes += [in_words(kind, without_null=True)] if base is None and not lists_choices else []
        notes += [str(allowed).removeprefix("of ")] if (allowed := range_of(kind)) is not None else []
        default = _default_in_words(action, base)
        notes += [] if default is None else [f"default: {default}"]
        return f"{text} ({', '.join(notes)})" if notes else text

    def _choices(self, base: type, dest: str) -> str:
        first = self._listed.setdefault(base, dest)
        if first != dest:
            return f"The same choices as for --{first}."
        names = list(classes(base))
        if len(names) == 1:
            return f"--{dest}.help lists its settings."
        return f"One of {', '.join(names)}, or my_module.MyClass; --{dest}.help NAME lists its settings."

    def _format_action_invocation(self, action: Action) -> str:
        shown = action.option_strings
        action.option_strings = [option for option in shown if not option.endswith("+")]  # which append to a list
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = shown

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.replace("``", "`").replace(":math:", "").split("\n\n")
        return "\n\n".join(
            textwrap.fill(" ".join(paragraph.split()), width, initial_indent=indent, subsequent_indent=indent)
            for paragraph in paragraphs
        )


def arrange(parser: ArgumentParser) -> None:
    """Put required options first, and leave out options that another one's text names."""
    for action in parser._actions:
        if action.dest == "print_config":
            action.help, action.metavar = "Print the settings of all options and exit.", ""
        elif action.dest.endswith(".help") or (action.metavar == "CONFIG" and action.dest != "config"):
            action.help = SUPPRESS
        elif action.metavar == "[ITEM,...]":
            action.metavar = f"{action.dest.rpartition('.')[2].upper()} ..."
    for group in parser._action_groups:
        group._group_actions.sort(key=_place)


def introduction(documented: Any) -> str:
    """A docstring up to its sections (``Args``, ``Raises``, ...), without formulas."""
    paragraphs = (inspect.getdoc(documented) or "").split("\n\n")
    sections = [number for number, paragraph in enumerate(paragraphs) if paragraph.split("\n")[0].endswith(":")]
    before = paragraphs[: sections[0]] if sections else paragraphs
    return "\n\n".join([*before[:1], *(paragraph for paragraph in before[1:] if "math:" not in paragraph)])


def summary(documented: Any) -> str:
    """The first sentence of a docstring."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].replace(":math:", "").split())


def _place(action: Action) -> int:
    if action.dest in ("print_config", "help"):
        return 3
    return 0 if action.dest == "config" else 1 if action.required else 2


def _default_in_words(action: Action, base: type | None) -> str | None:
    default = action.default
    if isinstance(default, Namespace):
        default = default.as_dict()
    if base is not None and not isinstance(default, (int, float, str, NoneType)):
        if isinstance(default, dict):
            name = str(default["class_path"]).rpartition(".")[2]
        else:
            name = (default if inspect.isclass(default) else type(default)).__name__
        return snake_case(name) if len(classes(base)) > 1 else None
    if default is None or default == SUPPRESS:
        return None
    if isinstance(default, bool):
        return str(default).lower()
    return ", ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
