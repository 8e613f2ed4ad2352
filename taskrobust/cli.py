"""The commands. Each is a function whose parameters and docstring are its options and help."""

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from taskrobust import __version__

COMMANDS = {
    "demo": ("taskrobust.demo:demo", "Pre-train two small PoS-BERTs on generated text and compare them, in minutes."),
    "annotate": ("taskrobust.nlp.annotate:annotate", "Tag text and encode it as a corpus for pre-training."),
    "pretrain-bert": ("taskrobust.nlp.pretrain:pretrain_bert", "Pre-train a Part-of-Speech Mask BERT."),
    "env": ("taskrobust.environment:env", "Print the versions and devices that a bug report should name."),
}


def main() -> None:
    """Run the command that the command line names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments == ["--version"]:
        print(f"taskrobust {__version__}")
        return
    name, *options = arguments
    if name not in COMMANDS:
        sys.exit(f"error: Expected a command among {list(COMMANDS)}, got {name!r}.\n\n{_overview()}")
    function, parser = _command(name)
    config = parser.parse_args([_with_underscores(option) for option in options])
    try:
        _call(function, parser, config)
    except (ValueError, LookupError, OSError, RuntimeError, ArithmeticError) as error:
        if "TASKROBUST_TRACEBACK" in os.environ:
            raise
        sys.exit(f"error: {error}\n(TASKROBUST_TRACEBACK=1 shows where it was raised.)")


def run(name: str, settings: dict[str, Any]) -> Any:
    """Run a command from Python as its configuration file would.

    Args:
        name: Name of the command.
        settings: What the configuration file would say.
    """
    function, parser = _command(name)
    return _call(function, parser, parser.parse_object(settings))


def _command(name: str) -> tuple[Callable[..., Any], ArgumentParser]:
    module, function_name = COMMANDS[name][0].split(":")
    function: Callable[..., Any] = getattr(import_module(module), function_name)
    parser = ArgumentParser(prog=f"taskrobust {name}", description=COMMANDS[name][1])
    parser.add_argument("--config", action="config", help="Configuration file. Options after it override it.")
    parser.add_function_arguments(function, as_group=False, skip={"resolved"})
    return function, parser


def _call(function: Callable[..., Any], parser: ArgumentParser, config: Namespace) -> Any:
    arguments = parser.instantiate(config)
    del arguments["config"]
    if "resolved" in inspect.signature(function).parameters:
        arguments["resolved"] = yaml.safe_load(parser.dump(config))
    return function(**arguments)


def _with_underscores(option: str) -> str:
    """The option's name as its parameter is written: ``--num-proc=2`` is ``--num_proc=2``."""
    name, equals, value = option.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else option


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        ["usage: taskrobust COMMAND [OPTIONS]", "", *lines, "", "taskrobust COMMAND --help has the options."]
    )
