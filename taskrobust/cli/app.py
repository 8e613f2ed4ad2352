"""The commands. Each is a function whose parameters and docstring are its options and help."""

import os
import re
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from taskrobust import __version__
from taskrobust._names import did_you_mean
from taskrobust.extras import MissingExtraError, require

if TYPE_CHECKING:
    from taskrobust.cli.options import Options

COMMANDS = {
    "demo": "Pre-train two small PoS-BERTs on generated text and compare them.",
    "demo vision": "The same with two small MM-MAEs on generated rooms.",
    "annotate": "Tag text and encode it as a corpus for pre-training.",
    "pretrain-bert": "Pre-train a Part-of-Speech Mask BERT.",
    "pretrain-mae": "Pre-train a Multi-Modal Mask MAE.",
    "finetune-glue": "Fine-tune a pre-trained model on GLUE and score it.",
    "finetune-vision": "Fine-tune for classes, segmentation or depth.",
    "compare": "Compare runs: best worst case, and its cost.",
    "reference": "Collect the risks of finished runs as a reference for excess risks.",
    "reproduce table1": "Pre-train with weightings, fine-tune on GLUE, compare.",
    "reproduce table2": "The same for classification, segmentation and depth.",
    "reproduce table3": "Measure what each weighting adds to a training step.",
    "reproduce figure3": "Draw segmentations after each weighting.",
    "theory bound": "Compare Algorithm 1 with the bound of Theorem 3.1.",
    "theory sample-complexity": "Count the samples tasks need.",
    "theory appendix-c": "Show what averaging costs the worst task.",
    "theory excess": "Compare minimax on risks and on excess risks.",
    "pretext synthetic": "Measure processors on generated data.",
    "pretext cifar10": "The same on CIFAR-10.",
    "predict": "Predict all maps of images with a pre-trained model.",
    "scenes": "Generate rooms with exact depth, labels and classes.",
    "compare-predictions": "Draw what several fine-tuned models predict.",
    "shards": "Pack a folder of images and maps into tar shards.",
    "pseudo-label": "Label images with depth and semantic maps.",
    "step-cost": "Measure what each weighting adds to a training step.",
    "configs": "List the configurations that come with taskrobust.",
    "env": "Print the versions and devices that a bug report should name.",
}
"""Summary of each command. The function of a command has its name, in a file of that name in taskrobust/commands/."""

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def main() -> None:
    """Run the command that the command line names.

    Exits with 1 where the command fails, 2 where the command line is wrong, 130 after Ctrl-C and 143 after SIGTERM.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        _run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise ``KeyboardInterrupt``, or exit at once during an import: some libraries catch it there and continue."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"Interrupted.\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> None:
    _wait_without_spinning()  # before a command imports torch
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        print(f"taskrobust {__version__}")
        return
    name, options = _named(arguments)
    sys.path.append("")  # the current folder: an installed script, too, finds your own classes there
    try:
        require("train", f"taskrobust {name}")
        command = options_of(name)
        try:
            config = command.parse(options)
        except ValueError as error:
            raise _failure(f"{error}\n(taskrobust {name} --help lists the options.)", WRONG_USAGE) from error
        command.call(config)
    except BrokenPipeError:
        raise
    except MissingExtraError as error:
        raise _failure(str(error), FAILED) from error
    except (ValueError, LookupError, OSError, RuntimeError, ArithmeticError) as error:
        if "TASKROBUST_TRACEBACK" in os.environ:
            raise
        raise _failure(f"{error}\n(TASKROBUST_TRACEBACK=1 shows where it was raised.)", FAILED) from error


def _wait_without_spinning() -> None:
    """Let OpenMP's threads sleep instead of spin, unless the user has chosen how they wait.

    This is decided when torch is imported. On a busy machine, a spinning thread keeps the core from the thread that it
    waits for. GNU's OpenMP, which the wheels of torch use on Linux, spins 300,000 times by default. A thousand times
    costs nothing on an idle machine, unlike sleeping at once; see benchmarks/RESULTS.md.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


def _named(arguments: list[str]) -> tuple[str, list[str]]:
    """The command that a command line names, and what follows."""
    first, both = arguments[0], " ".join(arguments[:2])
    if both in COMMANDS:
        return both, arguments[2:]
    below = [name for name in COMMANDS if name.startswith(f"{first} ")]
    hint = did_you_mean(" ".join(arguments[1:2]), [name.partition(" ")[2] for name in below], prefix=f"{first} ")
    if first in COMMANDS and not hint:
        return first, arguments[1:]
    among = f" among {below}" if below and first not in COMMANDS else ""
    hint = hint if below else did_you_mean(both, COMMANDS) or did_you_mean(first, COMMANDS)
    message = f"Expected a command{among}, got {(both if below else first)!r}.{hint}"
    raise _failure(f"{message}\n(taskrobust --help lists the commands.)", WRONG_USAGE)


def _failure(message: str, code: int) -> SystemExit:
    print(f"error: {message}", file=sys.stderr)
    return SystemExit(code)


def run(name: str, settings: dict[str, Any]) -> Any:
    """Run a command from Python as its configuration file would.

    Args:
        name: Name of the command.
        settings: The contents of the configuration file.
    """
    command = options_of(name)
    return command.call(command.parse_settings(settings))


def options_of(name: str) -> "Options":
    """The options of a command."""
    from taskrobust.cli.options import Options

    function = re.sub("[ -]", "_", name)
    return Options(name, getattr(import_module(f"taskrobust.commands.{function}"), function))


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        ["usage: taskrobust COMMAND [OPTIONS]", "", *lines, "", "taskrobust COMMAND --help lists the options."]
    )
