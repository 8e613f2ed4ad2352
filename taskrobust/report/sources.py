"""What lies in the folders that a comparison is given."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from taskrobust.report.cost import COST, MeasuredCost, read_cost
from taskrobust.report.runs import METRICS, RunRecord, read_unfinished
from taskrobust.training.results import RESULTS, Result, read_results

_SAME_IN_SEEDS: Final = ("weighting", "risk", "modalities", "bert", "mae", "optim", "loop.steps", "loop.epochs")
"""Settings that runs of one label share."""


@dataclass(frozen=True)
class Source:
    """All that there is of a label.

    Args:
        label: The label.
        pretraining: The pre-training runs, by folder.
        results: The results of fine-tuning, with the folder of each.
        costs: Steps that ``taskrobust step-cost`` measured.
        left_out: Sentences on what was found and not taken.
    """

    label: str
    pretraining: dict[Path, RunRecord]
    results: list[tuple[Path, Result]]
    costs: list[MeasuredCost]
    left_out: list[str]


class NoRunError(ValueError):
    """A label has no run."""


def find_sources(runs: Sequence[str], warn: bool = False) -> tuple[list[Source], list[str]]:
    """Find all labels with runs, and sentences on those without.

    Args:
        runs: LABEL=FOLDER, or FOLDER, whose label is its name without ``-seed`` and a number at the end.
        warn: Whether a label without a run is left out and said, if another label has one. Else it is an error.

    Raises:
        ValueError: If there is no such folder, no run, or runs of a label differ in more than the seed.
    """
    sources, warnings = [], []
    for label, folders in labelled_folders(runs).items():
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


def labelled_folders(runs: Sequence[str]) -> dict[str, list[Path]]:
    """The folders of each label.

    Args:
        runs: LABEL=FOLDER, or FOLDER, whose label is its name without ``-seed`` and a number at the end.
    """
    folders: dict[str, list[Path]] = {}
    for run in runs:
        label, equals, path = run.partition("=")
        folder = Path(path if equals else run)
        label = label if equals else re.sub(r"-seed\d+$", "", folder.resolve().name)
        folders.setdefault(label, []).append(folder)
    return folders


def find_source(label: str, folders: Sequence[Path]) -> Source:
    """Find all runs and measured costs in and below folders.

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
        if folder in finished or not (folder / "config.yaml").exists():
            continue
        run = read_unfinished(folder, label)
        if len(run.weighted_tasks) == 1:
            left_out.append(f"{label}: the fine-tuning in {folder} is not finished and left out.")
        elif not run.held_out:
            left_out.append(f"{label}: {folder} was not evaluated yet and is left out.")
        else:
            pretraining[folder] = run
    costs = [read_cost(folder / COST) for folder in _having(folders, COST)]
    if not pretraining and not results and not costs:
        found = f" ({' '.join(left_out)})" if left_out else ""
        places = " and ".join(map(str, folders))
        raise NoRunError(
            f"Expected a run in {places}: a folder with {METRICS} and config.yaml, or with {RESULTS}; got none{found}."
        )
    _check_same(label, list(pretraining))
    return Source(label, pretraining, results, costs, left_out)


def _having(folders: Sequence[Path], name: str) -> list[Path]:
    """Folders with such a file, each once."""
    found = {file.parent.resolve(): file.parent for folder in folders for file in sorted(folder.rglob(name))}
    return list(found.values())


def _check_same(label: str, folders: Sequence[Path]) -> None:
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
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
    return value.get(name) if name and value is not None else value
