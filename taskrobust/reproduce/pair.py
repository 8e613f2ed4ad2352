"""Two runs at the same time, watched and compared: what the demos do."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from taskrobust._io.paths import find_config
from taskrobust.report.plots import plot_risks_and_weights
from taskrobust.report.render import HeldOutTable
from taskrobust.report.runs import read_run
from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import Run, available_cores
from taskrobust.training.device import DeviceConfig

_STEP = re.compile(r"step (\d+) of (\d+): (.*)")


def train_pair(
    command: Sequence[str],
    weightings: dict[str, str],
    output: Path,
    seed: int,
    steps: int | None,
    device: DeviceConfig,
) -> dict[str, Path]:
    """Run a command with several weightings at the same time; the run folders, by label."""
    options = _changed(device)
    if device.threads is None and "OMP_NUM_THREADS" not in os.environ:
        options += ("--device.threads", "1")  # more do not help a small model
    length = () if steps is None else ("--loop.steps", str(steps))
    folders = {label: output / f"{weighting}-seed{seed}" for label, weighting in weightings.items()}
    parts = [
        Part(
            name=folder.name,
            command=(
                *(*command, "--config", str(find_config(f"configs/weighting/{weightings[label]}.yaml"))),
                *("--loop.seed", str(seed), *length, "--output", str(folder)),
            ),
            finished=(folder / "model/evaluation.json",),
            batches=options,
        )
        for label, folder in folders.items()
    ]
    plan, console = Plan(output, parts), Console()
    jobs = min(len(parts), available_cores())
    how = "at the same time" if jobs > 1 else "one after the other, as there is one core"
    console.print(f"Two runs of {shlex.join(command[:3])}, {how}. Logs: {output / 'logs'}", soft_wrap=True)
    with _Watch(plan, {folder.name: label for label, folder in folders.items()}, console) as watch:
        Run(plan, jobs, console, watch.look).to_the_end()
    return folders


def _changed(device: DeviceConfig) -> tuple[str, ...]:
    """The options that make this device of the default one."""
    default = DeviceConfig()
    return tuple(
        word
        for field in fields(device)
        if (value := getattr(device, field.name)) != getattr(default, field.name)
        for word in (f"--device.{field.name}", str(value).lower())
    )


@dataclass
class _Log:
    """A log that another process writes."""

    path: Path
    read: int

    def new_lines(self) -> list[str]:
        """The lines that are complete and were not there before."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            complete, newline, _ = file.read().rpartition(b"\n")
        self.read += len(complete) + len(newline)
        return complete.decode(errors="replace").splitlines()


class _Watch:
    """Shows the progress of parts that are training: as bars in a terminal, as lines elsewhere.

    Args:
        plan: The parts.
        labels: What each is called, by its name.
        console: Where it is shown.
    """

    def __init__(self, plan: Plan, labels: dict[str, str], console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._logs = {}
        for part in (part for part in plan.parts if not part.is_finished):
            log = plan.log(part)
            label = labels[part.name]
            task = self._progress.add_task(label, total=None, state="starting")
            self._logs[label] = (_Log(log, log.stat().st_size if log.exists() else 0), task)

    def __enter__(self) -> "_Watch":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def look(self) -> None:
        """Show what is new in the logs."""
        for label, (log, task) in self._logs.items():
            for line in log.new_lines():
                step = _STEP.fullmatch(line)
                if step is not None:
                    self._progress.update(task, completed=int(step[1]), total=int(step[2]), state=step[3])
                if (step is not None and not self._console.is_terminal) or line.startswith("  device "):
                    self._console.print(f"{label}: {line.strip()}", markup=False, highlight=False, soft_wrap=True)


def conclude(folders: dict[str, Path], output: Path, next_command: Sequence[str]) -> None:
    """Compare the runs, and say what can be done with them."""
    records = [read_run(folder, label) for label, folder in folders.items()]
    table = HeldOutTable(records)
    table.save(output)
    plot_risks_and_weights(records, output / "risks_and_weights.png")
    console = Console(highlight=False)
    console.print(table.rich())
    model = str(folders["minimax"])
    compared = [f"{folder.name.partition('-')[0]}={folder}" for folder in folders.values()]
    commands = [(*next_command, "--model", model, "--output", f"{model}-finetuned"), ("compare", *compared)]
    for line in (
        f"Table: {output / 'table.md'}, {output / 'table.json'}",
        f"Risks and weights over steps: {output / 'risks_and_weights.png'}",
        f"Models: {', '.join(str(folder / 'model') for folder in folders.values())}",
        "Next:",
        *(f"  taskrobust {shlex.join(words)}" for words in commands),
    ):
        console.print(line, markup=False, soft_wrap=True)
