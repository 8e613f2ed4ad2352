"""Configurations that nobody wrote: every refusal must be one line that names the file or the option.

Each try changes a configuration that comes with taskrobust, as a tree or as bytes, and reads and instantiates it as its
command would, without running the command. Outcomes:

    read        the command would start
    refused     one line that names the changed option or the file
    unnamed     a refusal that names neither
    long        a refusal of more than one line, but for the hint at its end
    traceback   an exception that the command line does not expect

Exits with 1 if there is an unnamed, a long one or a traceback.

Run: ``OMP_NUM_THREADS=1 python benchmarks/fuzz_configurations.py --tries 10000``
"""

import argparse
import copy
import os
import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from taskrobust._io.tables import markdown_table
from taskrobust.cli import options_of

CONFIGS = Path(__file__).parents[1] / "configs"
OUTCOMES = ("read", "refused", "unnamed", "long", "traceback")
EXPECTED = (ValueError, LookupError, OSError, RuntimeError, ArithmeticError)
"""What the command line turns into a message."""

BASES = {"pretrain-bert": ["nlp/demo.yaml"], "pretrain-mae": ["vision/demo.yaml"]}
"""What a configuration is laid over, since some hold a weighting only."""

NONSENSE: list[Any] = [
    *(
        None,
        True,
        "",
        "x",
        "nan",
        ".inf",
        "1e400",
        "\u2028",
        "😀",
        "../..",
        "$NOWHERE/x",
        "os.system",
        "SoftmaxMinimax",
    ),
    *(0, -1, 1, 10**30, 0.5, -0.5, float("nan"), float("inf"), float("-inf"), 1e-320),
    *([], [1], ["a", 2], [None], {}, {"a": 1}, {"class_path": "os.system"}, {"class_path": None}, {1: 2}, [[]]),
    {"class_path": "taskrobust.SoftmaxMinimax", "init_args": {"alpha": [1]}},
    {"class_path": "x.y.Z", "init_args": None},
]


def command_of(path: Path) -> str:
    """The command that a configuration is for."""
    text = path.read_text()
    named = re.search(r"taskrobust (pretrain-bert|pretrain-mae|finetune-glue|finetune-vision)", text)
    if named is not None:
        return named[1]
    if path.parent.name == "finetune":
        return "finetune-vision"
    if path.stem.startswith("glue"):
        return "finetune-glue"
    return "pretrain-mae" if path.parent.name == "vision" else "pretrain-bert"


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all entries below the root."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


def change_value(tree: Any, draw: random.Random) -> tuple[str, list[str]]:
    """Another value or type, a missing key, an unknown one, one too deep. Returns the kind and names to expect."""
    path = draw.choice(list(places(tree)))
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    last = path[-1]
    names = [str(key) for key in path if isinstance(key, str) and key not in ("class_path", "init_args")]
    kind = draw.choice(["value", "value", "value", "deleted", "renamed", "wrapped", "nested"])
    if kind == "value":
        parent[last] = draw.choice(NONSENSE)
    elif kind == "deleted" or not isinstance(parent, dict):
        del parent[last]
    elif kind == "renamed":
        new = draw.choice([f"{last}s", str(last).upper(), "\x85", "a.b", "-", "trust", "resolved", "run"])
        parent[new] = parent.pop(last)
        names.append(new)
    elif kind == "wrapped":
        parent[last] = [parent[last]]
    else:
        parent[last] = {last: parent[last]}
    return kind, names


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """A cut, a flipped bit, other bytes, another document."""
    place = draw.randrange(len(content))
    kind = draw.randrange(6)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    inserted = draw.choice(
        [b"\x00", b"\xff\xfe", b"\t", b"{", b"[", b"&a *a", b"!!python/object:os.system", b": :", b"---\n"]
    )
    if kind in (2, 3):
        return content[:place] + inserted + content[place:]
    if kind == 4:
        return draw.choice(
            [b"", b"null", b"[]", b"- 1\n- 2\n", b"7", b'"text"', b"{", b"\xef\xbb\xbf", b"%YAML 9\n---\n"]
        )
    return content.decode().encode("utf-16")


def outcome_of(options: Any, words: list[str], names: list[str]) -> tuple[str, str]:
    """What came of reading a configuration, and the message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options.call(options.parse(words))
    except EXPECTED as error:
        message = str(error)
        if not any(name and name in message for name in names):
            return "unnamed", message
        return ("long" if "\n" in message.strip() else "refused"), message
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    return "read", ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="failures to print of each outcome")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    files = sorted(CONFIGS.rglob("*.yaml"))
    os.environ |= {
        name: "/nowhere" for path in files for name in re.findall(r"\$\{?([A-Z][A-Z0-9_]*)", path.read_text())
    }
    options = {name: options_of(name) for name in sorted({command_of(path) for path in files})}
    for option in options.values():
        option.function = lambda **_: None
    counts: dict[str, Counter[str]] = {}
    shown: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "changed.yaml"
        for _ in range(arguments.tries):
            path = draw.choice(files)
            names = [str(file), "environment variable"]
            if draw.random() < 0.75:
                tree = copy.deepcopy(yaml.safe_load(path.read_text()))
                kind, changed = change_value(tree, draw)
                names += changed
                file.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
            else:
                kind = "bytes"
                file.write_bytes(change_bytes(path.read_bytes(), draw))
                tree = yaml.safe_load(path.read_text())
                names += [key for place in places(tree) for key in place if isinstance(key, str)]
            command = command_of(path)
            words = [*(word for base in BASES.get(command, ()) for word in ("--config", str(CONFIGS / base)))]
            words += ["--config", str(file), "--output", str(Path(folder) / "run")]
            words += ["--model", "none"] if command.startswith("finetune") else []
            outcome, message = outcome_of(options[command], words, names)
            counts.setdefault(kind, Counter())[outcome] += 1
            if outcome in OUTCOMES[2:] and shown[outcome] < arguments.show:
                shown[outcome] += 1
                print(f"{outcome}, {path.name}, {kind}, {names[2:5]}: {message}", file=sys.stderr)
    rows = [
        [kind, str(sum(of_kind.values())), *(str(of_kind[outcome]) for outcome in OUTCOMES)]
        for kind, of_kind in sorted(counts.items())
    ]
    print(markdown_table(["change", "tries", *OUTCOMES], rows))
    sys.exit(any(of_kind[outcome] for of_kind in counts.values() for outcome in OUTCOMES[2:]))


if __name__ == "__main__":
    main()
