"""Kills processes with SIGKILL and runs them again: the result must be that of a run that nobody disturbed, bit by bit.

Half of the kills are aimed at file events (the n-th open for writing, rename, deletion or new folder below the output),
half come after a random time. After each, the same command runs to its end, sometimes after a second kill. Rows:

    training        the toy recipe of the tests: its lines of metrics.jsonl, and its model
    with state      the same with dropout, a weighting with parameters, smoothed risks and a loader's worker
    annotation      a generated corpus of two shards: all its files
    scenes          generated rooms: all their files

Exits with 1 if a result is not equal, or a process that nobody killed fails.

Run: ``PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 200``
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from taskrobust._io.tables import markdown_table

EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
PRELOADED = ["torch", "transformers", "taskrobust.training.trainer", "taskrobust.nlp.corpus.build", "tests.helpers.toy"]
PRELOADED += [
    "taskrobust.synthetic.rooms.store",
    "transformers.optimization",
    "torch._dynamo",
    "torch.distributed.tensor",
]


class Row(NamedTuple):
    """What is killed.

    Attributes:
        name: Name in the table.
        run: Runs in a folder to the end.
        result: What of the folder must be equal.
    """

    name: str
    run: Callable[[Path], None]
    result: Callable[[Path], Any]


def train(folder: Path, *settings: str) -> None:
    """The toy recipe."""
    from tests.helpers import toy

    toy.main(str(folder), "trackers=none", *settings)


def train_with_state(folder: Path) -> None:
    """The toy recipe with everything that has state."""
    train(folder, "dropout=0.3", "weighting=uncertainty", "smoothing=0.9", "workers=1", "checkpoint_every=3")


def curve_and_model(folder: Path) -> Any:
    """The record and the parameters of a toy run."""
    from tests.helpers import toy

    return toy.lines(folder), toy.digest(toy.exported(folder))


def annotate(folder: Path) -> None:
    """A generated corpus."""
    from taskrobust.nlp.corpus.build import CorpusConfig, prepare

    sources: dict[str, Any] = {"train_source": "grammar", "held_out_source": "grammar", "vocab_size": 300}
    places = {"train": folder / "train", "held_out": folder / "held-out"}
    prepare(CorpusConfig(**places, **sources, sequence_length=32, documents=2100, held_out_documents=20))


def generate(folder: Path) -> None:
    """Generated rooms."""
    from taskrobust.synthetic.rooms.store import ScenesConfig, prepare_scenes

    prepare_scenes(ScenesConfig(folder=folder, train=600, held_out=20, size=16))


def files(folder: Path) -> Any:
    """The content of all files but locks."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]


ROWS = [
    Row("training", train, curve_and_model),
    Row("with state", train_with_state, curve_and_model),
    Row("annotation", annotate, files),
    Row("scenes", generate, files),
]


def child(row: int, folder: Path, event: int | None, seconds: float | None) -> None:
    """Run, and die at a file event or after a time."""
    os.setpgid(0, 0)
    log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seen = 0

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name not in EVENTS or str(folder) not in str(arguments[0]):
            return
        if name == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        seen += 1
        if seen == event:
            os.killpg(0, signal.SIGKILL)

    if event is not None:
        sys.addaudithook(watch)
    if seconds is not None:
        threading.Timer(seconds, lambda: os.killpg(0, signal.SIGKILL)).start()
    ROWS[row].run(folder)
    if event is not None:
        (folder.parent / "events").write_text(str(seen))
    os._exit(0)


def run(context: Any, row: int, folder: Path, event: int | None = None, seconds: float | None = None) -> int:
    """The exit code."""
    process = context.Process(target=child, args=(row, folder, event, seconds))
    process.start()
    process.join(300)
    assert process.exitcode is not None, f"{ROWS[row].name} hangs in {folder}"
    return int(process.exitcode)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills of each row")
    parser.add_argument("--rows", nargs="+", default=[row.name for row in ROWS])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    table, bad = [], False
    for number, row in enumerate(ROWS):
        if row.name not in arguments.rows:
            continue
        kills, aimed, unequal, errors, folder_number = 0, 0, 0, 0, 0
        with tempfile.TemporaryDirectory() as root:
            reference = Path(root) / "reference" / "run"
            reference.parent.mkdir()
            begin = time.perf_counter()
            assert run(context, number, reference, event=10**9) == 0, (reference.parent / "log").read_text()
            length = time.perf_counter() - begin
            events = int((reference.parent / "events").read_text())
            expected = row.result(reference)
            while kills < arguments.kills:
                folder_number += 1
                folder = Path(root) / str(folder_number) / "run"
                folder.parent.mkdir()
                for _ in range(draw.choice([1, 1, 2])):
                    at_event = draw.random() < 0.5
                    event = draw.randint(1, events) if at_event else None
                    seconds = None if at_event else draw.uniform(0, length)
                    killed = run(context, number, folder, event, seconds) == -signal.SIGKILL
                    kills += killed
                    aimed += killed and at_event
                code = run(context, number, folder)
                errors += code != 0
                unequal += code == 0 and row.result(folder) != expected
                if code != 0 or row.result(folder) != expected:
                    print(
                        f"{row.name}, exit code {code}: {(folder.parent / 'log').read_text()[-500:]}", file=sys.stderr
                    )
                shutil.rmtree(folder.parent)
        table.append([row.name, str(events), str(kills), str(aimed), str(unequal), str(errors)])
        print(table[-1], file=sys.stderr, flush=True)
        bad |= unequal + errors > 0
    print(markdown_table(["killed", "file events of a run", "kills", "at a file event", "not equal", "errors"], table))
    sys.exit(bad)


if __name__ == "__main__":
    main()
