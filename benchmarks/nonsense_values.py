"""Nonsense for every numeric option of every command: refused in one line that names the option, or meaningful.

The options are those of the commands' signatures, so that a new one is tried as well. Outcomes:

    read        the command would start
    refused     one line that names the option
    unnamed     a refusal that does not
    long        one of several lines
    traceback   an exception that the command line does not expect

Prints the numbers below 0 that are read, for a look at them, and exits with 1 if there is one of the last three, or a
number that is read and not finite.

Run: ``OMP_NUM_THREADS=1 python benchmarks/nonsense_values.py``
"""

import math
import os
import sys
import tempfile
from pathlib import Path

from fuzz_configurations import CONFIGS, OUTCOMES, outcome_of

from taskrobust._io.tables import markdown_table
from taskrobust.cli import COMMANDS, options_of
from taskrobust.cli.kinds import members
from taskrobust.cli.options import Options

VALUES = ("0", "-1", "1", "-0.5", "0.5", "nan", ".nan", "inf", ".inf", "-.inf", "1e400", "9223372036854775808")
VALUES += ("x", "", "[]", "{}")
BASES = {
    "pretrain-bert": ["--config", "nlp/demo.yaml"],
    "pretrain-mae": ["--config", "vision/demo.yaml"],
    "finetune-glue": ["--config", "nlp/glue-demo.yaml", "--model", "none"],
    "finetune-vision": ["--config", "vision/finetune/rooms-depth.yaml", "--model", "none"],
}
"""Options that a command needs."""


def numeric(options: Options) -> list[str]:
    """The options that take a number."""
    settings = options._settings()
    names = [action.dest for action in options.parser._actions]
    names = [name for name in names if not name.startswith(("help", "config", "print_")) and ".help" not in name]
    return [name for name in names if {int, float} & set(members(settings.kind_of(name)))]


def required(options: Options, command: str, folder: Path) -> list[str]:
    """Words for the options that the command needs."""
    if command in BASES:
        words = [str(CONFIGS / word) if word.endswith(".yaml") else word for word in BASES[command]]
        return [*words, "--output", str(folder / "run")]
    names = [action.dest for action in options.parser._actions if action.required]
    return [word for name in names for word in (f"--{name}", str(folder / "x"))]


def main() -> None:
    """Print the table."""
    rows, negative, bad = [], [], 0
    os.environ["TASKROBUST_DATA"] = "/nowhere"
    for command in COMMANDS:
        options = options_of(command)
        options.function = lambda **_: None
        with tempfile.TemporaryDirectory() as folder:
            base = required(options, command, Path(folder))
            outcome, message = outcome_of(options, base, [])
            if outcome != "read":
                print(f"{command} is left out: {message}", file=sys.stderr)
                continue
            counts = dict.fromkeys(OUTCOMES, 0)
            below = 0
            names = numeric(options)
            for name in names:
                for value in VALUES:
                    outcome, message = outcome_of(options, [*base, f"--{name}={value}"], [name, name.split(".")[-1]])
                    counts[outcome] += 1
                    if outcome in OUTCOMES[2:]:
                        bad += 1
                        print(f"{outcome}: {command} --{name}={value}: {message}", file=sys.stderr)
                    elif outcome == "read" and _is_number(value):
                        bad += not math.isfinite(float(value))
                        if not math.isfinite(float(value)):
                            print(f"accepted: {command} --{name}={value}", file=sys.stderr)
                        if float(value) < 0:
                            below += 1
                            negative.append(f"{command} --{name}={value}")
            tries = str(len(names) * len(VALUES))
            rows.append([command, str(len(names)), tries, *map(str, counts.values()), str(below)])
    print(markdown_table(["command", "options", "tries", *OUTCOMES, "read, below 0"], rows))
    print("Below 0 and read:", ", ".join(negative) or "none")
    sys.exit(bad > 0)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
