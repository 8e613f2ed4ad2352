"""A plan of commands that can be inspected, interrupted and resumed."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from taskrobust._io.atomic import checksum, write_atomically
from taskrobust._io.paths import unset_variables


@dataclass(frozen=True, kw_only=True)
class Part:
    """A command of a plan.

    Args:
        name: Name of the part and of its log.
        command: Words after ``taskrobust``.
        finished: Files that all exist if and only if the command has finished. Without any, it runs every time.
        needs: Names of the parts that must have finished before it starts.
        after: Names of the parts that must have finished or failed before it starts.
        minutes: Estimated time, as measured on the machine that the plan is for. None if not measured.
        processes: Number of processes. More than one are started by torchrun.
        batches: Further options that do not change its result, such as those that depend on the number of processes.
    """

    name: str
    command: tuple[str, ...]
    finished: tuple[Path, ...]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    minutes: float | None = None
    processes: int = 1
    batches: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether the command has finished."""
        return bool(self.finished) and all(file.exists() for file in self.finished)

    def shell(self) -> str:
        """The command as one would type it."""
        torchrun = ["torchrun", "--nproc-per-node", str(self.processes), "-m"] if self.processes > 1 else []
        return shlex.join([*torchrun, "taskrobust", *self.command, *self.batches])

    def identity(self) -> list[str]:
        """The command independent of paths: configurations by name and content."""
        return [_content(word) if word.endswith(".yaml") else word for word in self.command]


class Plan:
    """Parts in an order in which they can run, recorded in a folder.

    Args:
        folder: Folder of plan.json and logs/.
        parts: The parts. Each comes after those that it needs.

    Raises:
        ValueError: If the folder holds a plan with another command for one of the parts.
    """

    def __init__(self, folder: Path, parts: Sequence[Part]) -> None:
        self.folder = folder
        self.parts = list(parts)
        self._file = folder / "plan.json"
        self._before: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            self._before = json.loads(self._file.read_text())
        for part in self.parts:
            there = self._before.get(part.name, {}).get("identity", part.identity())
            if there != part.identity() and part.finished:
                here = shlex.join(part.identity())
                raise ValueError(
                    f"Expected {self._file} to be of the same plan, but its part {part.name} is\n  "
                    f"{shlex.join(there)}\nthere and\n  {here}\nhere. Choose another --output."
                )

    def save(self) -> None:
        """Write plan.json: the command of each part, and the time it took."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self.parts:
            note = {"command": part.shell(), "identity": part.identity()}
            self._before.setdefault(part.name, {}).update(note)
        write_atomically(self._file, json.dumps(self._before, indent=2) + "\n")

    def took(self, part: Part, seconds: float) -> None:
        """Record the time that a part took."""
        self._before[part.name]["seconds"] = round(seconds, 1)
        self.save()

    def log(self, part: Part) -> Path:
        """The log of a part, with all its output."""
        return self.folder / "logs" / f"{part.name.replace('/', '-')}.log"

    def unset_variables(self) -> dict[str, str]:
        """Environment variables that are not set, each with the configuration or option that names it."""
        words = [word for part in self.parts if not part.is_finished for word in part.command]
        texts = {word: Path(word).read_text() if word.endswith(".yaml") else word for word in words}
        return {name: word for word, text in texts.items() for name in unset_variables(text)}

    def table(self, jobs: int) -> Table:
        """The parts with state and time, for a terminal."""
        table = Table(title=f"Plan of {self.folder}", caption=self._total(jobs), caption_justify="left")
        for column in ("part", "state"):
            table.add_column(column, overflow="fold")
        table.add_column("minutes", justify="right")
        for part in self.parts:
            table.add_row(part.name, "finished" if part.is_finished else "to do", self._minutes(part))
        return table

    def _minutes(self, part: Part) -> str:
        if part.is_finished and "seconds" in self._before.get(part.name, {}):
            return f"took {float(self._before[part.name]['seconds']) / 60:.1f}"
        return "?" if part.minutes is None else f"{part.minutes:.1f}"

    def _total(self, jobs: int) -> str:
        left = [part for part in self.parts if not part.is_finished]
        known = [part.minutes for part in left if part.minutes is not None]
        unknown = len(left) - len(known)
        times = [f"about {sum(known) / jobs:.0f} minutes with {jobs} in parallel"] if known or not left else []
        times += [f"an unknown time for {unknown} of them"] if unknown else []
        return f"{len(left)} of {len(self.parts)} parts to do: {' and '.join(times)}."


def _content(config: str) -> str:
    """Name and checksum of a configuration file."""
    return f"{Path(config).name}#{checksum(Path(config)):08x}"
