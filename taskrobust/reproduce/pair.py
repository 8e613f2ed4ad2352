"""Runs a demo: two runs in parallel, their progress, and their comparison."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from taskrobust._io.paths import find_config
from taskrobust.report.plots import plot_risks_and_weights
from taskrobust.report.render import markdown, rich_table
from taskrobust.report.runs import read_run
from taskrobust.report.tables import held_out_table
from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import Run, available_cores
from taskrobust.training.config import DeviceConfig

_STEP = re.compile(r"step (\d+) of (\d+): (.*)")


def train_pair(
    command: Sequence[str],
    weightings: dict[str, str],
    output: Path,
    seed: int,
    steps: int | None,
    device: DeviceConfig,
) -> dict[str, Path]:
    """Run a command with several weightings in parallel.

    Args:
        command: Words after ``taskrobust``, the first three being its name and the option of its configuration.
        weightings: Names of files in configs/weighting, by label.
        output: Folder of the runs and their logs.
        seed: Seed of all runs.
        steps: Steps of each run. None uses those of the configuration.
        device: Device and precision. Defaults are left to the configuration.

    Returns:
        The run folders by label.
    """
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
            batches=_options(device),
        )
        for label, folder in folders.items()
    ]
    plan, console = Plan(output, parts), Console()
    jobs = min(len(parts), available_cores())
    how = "in parallel" if jobs > 1 else "one after the other, as there is one core"
    console.print(f"Two runs of {shlex.join(command[:3])}, {how}. Logs: {output / 'logs'}", soft_wrap=True)
    with _Watch(plan, {folder.name: label for label, folder in folders.items()}, console) as watch:
        Run(plan, jobs, console, watch.look).to_the_end()
    return folders


def conclude(folders: dict[str, Path], output: Path, next_command: Sequence[str]) -> None:
    """Compare the runs, and print where the results are and what to do next.

    Writes table.md, table.json and risks_and_weights.png.

    Args:
        folders: The run folders by label.
        output: Folder of the results.
        next_command: Command that fine-tunes the model of minimax, without the options that name model and output.
    """
    records = [read_run(folder, label) for label, folder in folders.items()]
    table = held_out_table(records)
    (output / "table.md").write_text(markdown(table))
    (output / "table.json").write_text(json.dumps({run.label: run.held_out[-1] for run in records}, indent=2) + "\n")
    plot_risks_and_weights(records, output / "risks_and_weights.png")
    console = Console(highlight=False)
    console.print(rich_table(table))
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


def _options(device: DeviceConfig) -> tuple[str, ...]:
    """The options that differ from the default device."""
    values = {field.name: getattr(device, field.name) for field in fields(device)}
    changed = {name: value for name, value in values.items() if value != getattr(DeviceConfig(), name)}
    return tuple(word for name, value in changed.items() for word in (f"--device.{name}", str(value).lower()))


@dataclass
class _Log:
    """A log that another process writes.

    Args:
        path: The file.
        read: Number of bytes that were read.
        task: Its progress bar.
    """

    path: Path
    read: int
    task: TaskID

    def new_lines(self) -> list[str]:
        """Complete lines since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            complete, newline, _ = file.read().rpartition(b"\n")
        self.read += len(complete) + len(newline)
        return complete.decode(errors="replace").splitlines()


class _Watch:
    """Shows the training progress of parts: progress bars in a terminal, lines elsewhere.

    Args:
        plan: The parts.
        labels: Labels of the parts, by name.
        console: Console to print to.
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
            path, label = plan.log(part), labels[part.name]
            task = self._progress.add_task(label, total=None, state="starting")
            self._logs[label] = _Log(path, path.stat().st_size if path.exists() else 0, task)

    def __enter__(self) -> "_Watch":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def look(self) -> None:
        """Show new lines of the logs."""
        for label, log in self._logs.items():
            for line in log.new_lines():
                step = _STEP.fullmatch(line)
                if step is not None:
                    self._progress.update(log.task, completed=int(step[1]), total=int(step[2]), state=step[3])
                if (step is not None and not self._console.is_terminal) or line.startswith("  device "):
                    self._console.print(f"{label}: {line.strip()}", markup=False, highlight=False, soft_wrap=True)
