"""The commands. Each is a function whose parameters and docstring are its options and help."""

import inspect
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from taskrobust import __version__
from taskrobust.threads import wait_without_spinning

COMMANDS = {
    "demo": ("taskrobust.demo:demo", "Pre-train two small PoS-BERTs on generated text and compare them, in minutes."),
    "demo vision": ("taskrobust.demo:demo_vision", "The same with two small MM-MAEs on generated rooms."),
    "annotate": ("taskrobust.nlp.annotate:annotate", "Tag text and encode it as a corpus for pre-training."),
    "pretrain-bert": ("taskrobust.nlp.pretrain:pretrain_bert", "Pre-train a Part-of-Speech Mask BERT."),
    "pretrain-mae": ("taskrobust.vision.pretrain:pretrain_mae", "Pre-train a Multi-Modal Mask MAE."),
    "finetune-glue": ("taskrobust.nlp.finetune:finetune_glue", "Fine-tune a pre-trained model on GLUE and score it."),
    "finetune-vision": ("taskrobust.vision.finetune:finetune_vision", "Fine-tune for classes, segmentation or depth."),
    "compare": ("taskrobust.reporting.compare:compare", "Compare runs: who is best in the worst case, at which cost."),
    "reproduce table1": (
        "taskrobust.reproduce.table1:table1",
        "Pre-train with weightings, fine-tune on GLUE, compare.",
    ),
    "reproduce table2": ("taskrobust.reproduce.table2:table2", "The same for classification, segmentation and depth."),
    "reproduce table3": ("taskrobust.reproduce.table3:table3", "Measure what each weighting adds to a training step."),
    "reproduce figure3": ("taskrobust.reproduce.table2:figure3", "Draw segmentations after each weighting."),
    "theory bound": ("taskrobust.theory.commands:bound", "Measure Algorithm 1 beside the bound of Theorem 3.1."),
    "theory sample-complexity": ("taskrobust.theory.commands:sample_complexity", "Count the samples tasks need."),
    "theory appendix-c": ("taskrobust.theory.commands:appendix_c", "Show what averaging costs the worst task."),
    "pretext synthetic": ("taskrobust.pretext.commands:pretext_synthetic", "Measure processors on generated data."),
    "pretext cifar10": ("taskrobust.pretext.commands:pretext_cifar10", "The same on CIFAR-10."),
    "predict": ("taskrobust.vision.predict:predict", "Predict all maps of images with a pre-trained model."),
    "scenes": ("taskrobust.vision.scenes:generate_scenes", "Generate rooms with exact depth, labels and classes."),
    "compare-predictions": (
        "taskrobust.vision.compare_predictions:compare_predictions",
        "Draw what several fine-tuned models predict.",
    ),
    "shards": ("taskrobust.vision.shards:pack_shards", "Pack a folder of images and maps into tar shards."),
    "pseudo-label": ("taskrobust.vision.pseudo_label:pseudo_label", "Label images with depth and semantic maps."),
    "step-cost": ("taskrobust.vision.step_cost:step_cost", "Measure what each weighting adds to a training step."),
    "env": ("taskrobust.environment:env", "Print the versions and devices that a bug report should name."),
}


class _Parser(ArgumentParser):
    """Ends with the one line that says what is wrong, not after a page of all options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.exit(f"error: {message}\n({self.prog} --help lists the options.)")


def main() -> None:
    """Run the command that the command line names."""
    wait_without_spinning()  # before a command imports torch
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments == ["--version"]:
        print(f"taskrobust {__version__}")
        return
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, options = " ".join(arguments[:words]), arguments[words:]
    if name not in COMMANDS:
        sys.exit(f"error: Expected a command among {list(COMMANDS)}, got {name!r}.\n\n{_overview()}")
    sys.path.append("")  # the current folder: an installed script, too, finds a class of one's own there
    function, parser = _command(name)
    named = _with_first_name([_with_underscores(option) for option in options], function)
    config = parser.parse_args(_with_lists(_with_true(named, function), function))
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
    parser = _Parser(prog=f"taskrobust {name}", description=COMMANDS[name][1])
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


def _with_first_name(options: list[str], function: Callable[..., Any]) -> list[str]:
    """Words before any option belong to the first one: ``compare a b`` is ``compare --runs a b``."""
    first = next(iter(inspect.signature(function).parameters), "")
    return [f"--{first}", *options] if options and not options[0].startswith("-") else options


def _with_true(options: list[str], function: Callable[..., Any]) -> list[str]:
    """A switch alone is on: ``--dry_run`` is ``--dry_run=true``."""
    switches = {f"--{name}" for name, kind in get_type_hints(function).items() if kind is bool}
    return [
        f"{option}=true" if option in switches and follower.startswith("-") else option
        for option, follower in zip(options, [*options[1:], "--"], strict=False)
    ]


def _with_lists(options: list[str], function: Callable[..., Any]) -> list[str]:
    """Options that take a list as the parser wants them: ``--image a.jpg b.jpg`` is ``--image=["a.jpg", "b.jpg"]``."""
    kinds = {f"--{name}": kind for name, kind in get_type_hints(function).items()}
    lists = {name: _takes_nothing_else(kind) for name, kind in kinds.items() if _takes_list(kind)}
    joined: list[str] = []
    values: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    current = None
    for option in options:
        name, equals, value = option.partition("=")
        if name in lists:
            if name not in values:
                places[name] = len(joined)
                joined.append("")  # filled in below
            current = values.setdefault(name, [])
            current += [value] if equals else []
        elif current is None or option.startswith("-"):
            current = None
            joined.append(option)
        else:
            current.append(option)
    for name, given in values.items():
        is_one = len(given) == 1 and (given[0].startswith("[") or not lists[name])
        joined[places[name]] = f"{name}={given[0] if is_one else json.dumps(given)}"
    return joined


def _takes_list(kind: Any) -> bool:
    """Whether it is a list, or may be one."""
    return get_origin(kind) is list or any(get_origin(part) is list for part in get_args(kind))


def _takes_nothing_else(kind: Any) -> bool:
    """Whether it is a list, or may be one or None."""
    return get_origin(kind) is list or all(get_origin(part) is list or part is NoneType for part in get_args(kind))


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        ["usage: taskrobust COMMAND [OPTIONS]", "", *lines, "", "taskrobust COMMAND --help has the options."]
    )
