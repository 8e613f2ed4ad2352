"""Find and read run folders: the runs of each label with their metrics, scores, costs and settings."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import yaml

from taskrobust._io.damage import damage_named
from taskrobust._io.settings import differences
from taskrobust.training.results import COST, RESULTS, Result, StepCost, read_cost, read_results
from taskrobust.training.run_folder import may_change

Line = dict[str, Any]

METRICS: Final = "metrics.jsonl"
CONFIG: Final = "config.yaml"

_SAME_IN_SEEDS: Final = ("weighting", "risk", "modalities", "bert", "mae", "optim", "loop.steps", "loop.epochs")
"""Settings that all pre-training runs of a label share."""

_OF_ONE_RUN: Final = ("model", "encoder", "glue", "tasks", "seeds", "predict")
"""Settings in which comparable fine-tunings may differ, in addition to those that may change within a run."""


@dataclass(frozen=True)
class RunRecord:
    """The metrics of a run.

    Args:
        label: Name of the run in tables and plots.
        training: The lines of metrics.jsonl on training steps.
        held_out: The lines on held-out evaluations.
    """

    label: str
    training: list[Line]
    held_out: list[Line]

    @property
    def weighted_tasks(self) -> list[str]:
        """The tasks that the weighting weights, without those of fixed weight; empty before the first line."""
        return list(self.training[0]["weights"]) if self.training else []

    @property
    def samples_per_second(self) -> float:
        """Median over the training lines, of which there is at least one."""
        return float(median(line["samples_per_second"] for line in self.training))

    @property
    def seconds_per_step(self) -> float:
        """Mean number of samples per step over ``samples_per_second``."""
        last = self.training[-1]
        return float(last["samples"] / last["step"] / self.samples_per_second)


@dataclass(frozen=True)
class Source:
    """The runs of a label.

    Args:
        label: The label.
        pretraining: The pre-training runs, by folder.
        results: The results of fine-tuning, with the folder of each.
        costs: Steps that ``taskrobust step-cost`` measured.
        left_out: Sentences on runs that were found but not used.
    """

    label: str
    pretraining: dict[Path, RunRecord]
    results: list[tuple[Path, Result]]
    costs: list[StepCost]
    left_out: list[str]


class NoRunError(ValueError):
    """A label has no run."""


def read_run(path: Path, label: str) -> RunRecord:
    """Read the run folder of a run that was evaluated.

    Args:
        path: The run folder.
        label: Name of the run in tables and plots.

    Raises:
        ValueError: If the folder holds no evaluation yet, or a line of metrics.jsonl is not JSON.
    """
    record = read_unfinished(path, label)
    if not record.held_out:
        raise ValueError(f"Expected a run that was evaluated at least once, got {path}.")
    return record


def read_unfinished(path: Path, label: str) -> RunRecord:
    """Read the run folder of a run that may not have been evaluated yet.

    Args:
        path: The run folder.
        label: Name of the run in tables and plots.

    Raises:
        ValueError: If there is no metrics.jsonl, or a line of it is not JSON.
    """
    metrics = path / METRICS
    if not metrics.exists():
        raise ValueError(f"Expected a run folder with {METRICS}, got {path}.")
    lines = _read_lines(metrics)
    training = [line for line in lines if line["split"] == "train"]
    held_out = [line for line in lines if line["split"] == "held_out"]
    return RunRecord(label, training, held_out)


def mean_run(runs: Sequence[RunRecord]) -> RunRecord:
    """Average runs that differ in their seed, over the steps that all of them logged.

    Args:
        runs: The runs, of the same tasks.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    by_step = [{line["step"]: line for line in run.training} for run in runs]
    steps = [step for step in by_step[0] if all(step in lines for lines in by_step)]
    keys = ("risks", "weights", "effective_tasks")
    training = [_mean_line([lines[step] for lines in by_step], keys) for step in steps]
    last = _mean_line([run.held_out[-1] for run in runs], ("risks",))
    risks = {task: math.inf if risk is None else risk for task, risk in last["risks"].items()}
    last["worst_task"] = max((task for task in first.weighted_tasks or risks if task in risks), key=risks.__getitem__)
    return RunRecord(first.label, training, [last])


def find_sources(runs: Sequence[str], warn: bool = False) -> tuple[list[Source], list[str]]:
    """Find the runs of all labels, and return warnings about labels without a run.

    Args:
        runs: LABEL=FOLDER, or FOLDER, which is labeled by its name without ``-seed`` and a number at the end.
        warn: Whether to leave out a label without a run and warn of it if another label has one, instead of raising.

    Raises:
        ValueError: If a folder does not exist, a label has no run, or runs of a label differ in more than the seed.
    """
    sources, warnings = [], []
    for label, folders in labeled_folders(runs).items():
        absent = [folder for folder in folders if not folder.is_dir()]
        if absent and not warn:
            raise ValueError(f"Expected LABEL=FOLDER or a folder, there is no folder {absent[0]} for {label!r}.")
        try:
            sources.append(find_source(label, folders))
            warnings += [f"{label}: there is no folder {folder}." for folder in absent]
        except NoRunError as error:
            if not warn:
                raise
            warnings.append(f"{label} is left out. {error}")
    if not sources:
        raise ValueError(" ".join(warnings))
    return sources, warnings


def labeled_folders(runs: Sequence[str]) -> dict[str, list[Path]]:
    """The folders of each label.

    Args:
        runs: LABEL=FOLDER, or FOLDER, which is labeled by its name without ``-seed`` and a number at the end.
    """
    folders: dict[str, list[Path]] = {}
    for run in runs:
        label, equals, path = run.partition("=")
        folder = Path(path if equals else run)
        label = label if equals else re.sub(r"-seed\d+$", "", folder.resolve().name)
        folders.setdefault(label, []).append(folder)
    return folders


def find_source(label: str, folders: Sequence[Path]) -> Source:
    """Find all runs and measured costs in folders and their subfolders.

    Args:
        label: Their label.
        folders: The folders.

    Raises:
        NoRunError: If there is no run.
        ValueError: If runs differ in more than the seed.
    """
    finished = _having(folders, RESULTS)
    results = [(folder, result) for folder in finished for result in read_results(folder)]
    pretraining, left_out = {}, []
    for folder in _having(folders, METRICS):
        if folder in finished or not (folder / CONFIG).exists():
            continue
        run = read_unfinished(folder, label)
        if len(run.weighted_tasks) == 1:
            left_out.append(f"{label}: the fine-tuning in {folder} is not finished and left out.")
        elif not run.held_out:
            left_out.append(f"{label}: {folder} was not evaluated yet and is left out.")
        else:
            pretraining[folder] = run
    costs = [read_cost(folder) for folder in _having(folders, COST)]
    if not pretraining and not results and not costs:
        found = f" ({' '.join(left_out)})" if left_out else ""
        places = " and ".join(map(str, folders))
        raise NoRunError(
            f"Expected a run in {places}: a folder with {METRICS} and {CONFIG}, or with {RESULTS}; got none{found}."
        )
    _check_same(label, list(pretraining))
    return Source(label, pretraining, results, costs, left_out)


def differing_settings(folders: Sequence[Path]) -> list[str]:
    """Sentences on how the settings of fine-tunings differ from those of the first, except for seed and model.

    Args:
        folders: Run folders of one task. Those without a config.yaml are ignored.
    """
    configs = {folder: _fine_tuning_settings(folder) for folder in folders if (folder / CONFIG).exists()}
    first = next(iter(configs), None)
    found: dict[str, Path] = {}
    for folder, config in configs.items():
        if first is not None and (changed := differences(configs[first], config, may_change(first))):
            found.setdefault("; ".join(changed), folder)
    return [f"{changed} ({first} and {folder})." for changed, folder in found.items()]


def _read_lines(metrics: Path) -> list[Line]:
    """All complete lines; the last line of a run that is running or was interrupted may be incomplete."""
    lines = []
    with damage_named(metrics, "lines of a run"):
        text = metrics.read_text()
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        with damage_named(metrics, f"the metrics of a run in line {number}"):
            lines.append(_checked(json.loads(line)))
    return lines


_NUMBERS: Final = {
    "train": ("step", "samples", "samples_per_second"),
    "held_out": ("step", "mean", "worst"),
}
_NUMBERS_BY_NAME: Final = {"train": ("risks", "weights"), "held_out": ("risks",)}


def _checked(line: Any) -> Line:
    """The line, if it has what tables and plots are made of."""
    if not isinstance(line, dict) or not isinstance(line.get("split"), str):
        raise ValueError("there is no split")
    for name in _NUMBERS.get(line["split"], ()):
        if not _is_number(line.get(name)):
            raise ValueError(f"{name} is {line.get(name)!r}")
    for name in (*_NUMBERS_BY_NAME.get(line["split"], ()), *({"scores"} & line.keys())):
        values = line.get(name)
        if not isinstance(values, dict) or not all(value is None or _is_number(value) for value in values.values()):
            raise ValueError(f"{name} is {values!r}")
    if line["split"] == "train" and not (line["step"] > 0 and line["samples_per_second"] > 0):
        raise ValueError(f"step and samples_per_second are {line['step']} and {line['samples_per_second']}")
    return line


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mean_line(lines: Sequence[Line], keys: Sequence[str]) -> Line:
    mean: Line = {"step": lines[0]["step"]}
    for key in keys:
        values = [line[key] for line in lines]
        if isinstance(values[0], dict):
            mean[key] = {name: _mean([value.get(name) for value in values]) for name in values[0]}
        else:
            mean[key] = _mean(values)
    return mean


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values: a task may be absent from the steps of a line."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _having(folders: Sequence[Path], name: str) -> list[Path]:
    """All folders that hold a file of this name, without repetitions."""
    found = {file.parent.resolve(): file.parent for folder in folders for file in sorted(folder.rglob(name))}
    return list(found.values())


def _check_same(label: str, folders: Sequence[Path]) -> None:
    configs = [_read_config(folder) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        for key in _SAME_IN_SEEDS:
            first, this = _setting(configs[0], key), _setting(config, key)
            if first != this:
                raise ValueError(
                    f"Expected runs under the label {label!r} that differ in the seed only, got {key} {first} in "
                    f"{folders[0]} and {this} in {folder}. Give each its own label: LABEL=FOLDER."
                )


def _setting(config: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    value = config.get(section)
    return value.get(name) if name and isinstance(value, Mapping) else value


def _fine_tuning_settings(folder: Path) -> dict[str, Any]:
    settings = {name: value for name, value in _read_config(folder).items() if name not in _OF_ONE_RUN}
    loop = settings.get("loop", {})
    if isinstance(loop, Mapping):
        settings["loop"] = {name: value for name, value in loop.items() if name != "seed"}
    return settings


def _read_config(folder: Path) -> dict[str, Any]:
    with damage_named(folder / CONFIG, "the settings of a run"):
        config = yaml.safe_load((folder / CONFIG).read_text())
        if not isinstance(config, dict):
            raise ValueError(f"it holds {type(config).__name__}")
        return config
