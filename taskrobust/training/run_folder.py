"""The folder of a run, which an interrupted run finds again."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from uuid import uuid4

import yaml

from taskrobust import __version__
from taskrobust._io.atomic import write_atomically
from taskrobust._io.locks import Lock
from taskrobust._io.settings import check_same_settings, flatten

Resume = Literal["auto", "never"]

CONFIG = "config.yaml"
RUN = "run.json"
FORMAT = 2
"""Number of the format of a run folder, increased when this version cannot resume what an earlier one began."""


class RunFolder:
    """The folder of one run: config.yaml, run.json, metrics.jsonl, pictures/, checkpoints/, model/, best/.

    Args:
        path: The folder.
        command: The command that makes it.
        settings: The run's configuration in plain values, written to config.yaml.
        may_change: The settings in which a run may differ from the one that it resumes, with dots between the levels.
        defaults: Values of settings by name, with dots between the levels, that a run of an earlier version, which did
            not have them, is taken to have.
        resume: ``auto`` resumes a run of the same configuration. ``never`` requires an empty folder.
        main: Whether this rank checks and writes. The others would see what it has just written.

    The folder is locked before anything is written, until :meth:`release` or the end of the process.

    Raises:
        ValueError: If the folder holds a run of another configuration, command or format, other files, or, with
            ``never``, anything, or another process is training in it.

    Attributes:
        id: Identifier of the run, kept when it resumes. Empty on other ranks.
    """

    def __init__(
        self,
        path: Path,
        command: str,
        settings: Mapping[str, Any],
        may_change: Collection[str] = (),
        resume: Resume = "auto",
        main: bool = True,
        defaults: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.id = ""
        self._lock: Lock | None = None
        if not main:
            return
        # So that the file can be resumed.
        settings = {key: value for key, value in settings.items() if key not in ("resume", "resume_from")}
        self._check(command, settings, may_change, resume, defaults)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(
            path / ".lock",
            f"Expected to be alone in the run folder {path}, but another process is training in it. Wait for it or end "
            "it: ranks survive when torchrun is killed with -9.",
        )
        self.id = about(path)["id"] if (path / CONFIG).exists() else uuid4().hex
        description = {
            "format": FORMAT,
            "id": self.id,
            "command": command,
            "version": __version__,
            "may_change": sorted(may_change),
        }
        write_atomically(path / RUN, json.dumps(description, indent=1) + "\n")
        write_atomically(path / CONFIG, yaml.safe_dump(settings, sort_keys=False))

    def release(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            self._lock.release()

    def _check(
        self,
        command: str,
        settings: Mapping[str, Any],
        may_change: Collection[str],
        resume: Resume,
        defaults: Mapping[str, Any],
    ) -> None:
        path = self.path
        names = {file.name for file in path.iterdir() if file.name[0] != "."} if path.exists() else set()
        if not names - {RUN}:  # the first file of a run that was killed
            return
        if resume == "never":
            raise ValueError(f"Expected an empty or new run folder with --resume never, {path} holds files.")
        if CONFIG not in names:
            raise ValueError(f"Expected a run folder or an empty one, {path} holds other files and no {CONFIG}.")
        there = about(path)
        if there["command"] != command:
            raise ValueError(
                f"Expected a run of {command} in {path}, got one of {there['command']}. Choose another --output."
            )
        here = flatten(settings)
        before = flatten(yaml.safe_load((path / CONFIG).read_text()))
        new = {name: value for name, value in defaults.items() if name in here and name not in before}
        check_same_settings(path, before | new, here, may_change)

    @property
    def metrics(self) -> Path:
        """One JSON line for each logged step and evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the final model."""
        return self.path / "model"

    @property
    def best(self) -> Path:
        """Folder of the model that was best on held-out data."""
        return self.path / "best"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures of each evaluation."""
        return self.path / "pictures"


def about(path: Path) -> dict[str, Any]:
    """The contents of a run folder's run.json: format, identifier, command, version and the settings that may change.

    Raises:
        ValueError: If there is none, or it is of another format.
    """
    file = path / RUN
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if content.get("format") != FORMAT:
        raise ValueError(
            f"Expected a run folder of format {FORMAT}, {path} was made by another version of taskrobust and cannot be "
            "resumed. Choose another --output."
        )
    return content


def may_change(path: Path) -> set[str]:
    """The settings that may differ between runs like that of a folder; none if it has no run.json."""
    return set(about(path)["may_change"]) if (path / RUN).exists() else set()
