from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import yaml

from taskrobust._io.atomic import write_atomically
from taskrobust._io.locks import exclusive
from taskrobust._io.manifest import check_same_settings

Resume = Literal["auto", "never"]

MAY_CHANGE = (
    "output",
    "resume",
    "on_nonfinite",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.workers",
    "device.threads",
    "pictures",
    "mae.memory_efficient",
    "corpus.num_proc",
    "scenes.num_proc",
    "scenes.folder",
    "rooms.num_proc",
    "rooms.folder",
    *(
        f"{data}.init_args.{setting}"
        for data in ("train", "held_out", "test")
        for setting in ("root", "folder", "pseudo_labels", "cache", "num_proc", "on_error")
    ),
    "corpus.train_source",  # of a corpus that is there
    "corpus.held_out_source",
    "loop.batch_size",  # on another number of processes; the trainer checks that a step has as many samples
)
"""Settings that say where and how a run is computed and watched, not what it computes."""


class RunFolder:
    """The folder of one run: config.yaml, metrics.jsonl, pictures/, checkpoints/, model/, best/.

    Args:
        path: The folder.
        config: The run's configuration in plain values, written to config.yaml.
        resume: ``auto`` goes on with a run of the same configuration that is there. ``never`` wants an empty folder.
        main: Whether this rank checks the folder and writes. The others would see what it has just written.

    Raises:
        ValueError: If the folder holds a run of another configuration, or anything with ``never``.
    """

    def __init__(self, path: Path, config: dict[str, Any], resume: Resume = "auto", main: bool = True) -> None:
        self.path = path
        config = {
            key: value for key, value in config.items() if key != "resume"
        }  # so that the file goes on with the run
        if main:
            self._check(config, resume)
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other processes out while this one trains. For the main rank.

        Raises:
            ValueError: On entering, if another process is training in the folder.
        """
        return exclusive(
            self.path / ".lock",
            f"Expected to be alone in the run folder {self.path}, but another process is training in it. Wait for it "
            "or end it: ranks survive when torchrun is killed with -9.",
        )

    def _check(self, config: dict[str, Any], resume: Resume) -> None:
        path, config_file = self.path, self.path / "config.yaml"
        if not path.exists() or not any(file.name[0] != "." for file in path.iterdir()):
            return
        if resume == "never":
            raise ValueError(f"Expected an empty or new run folder with --resume never, {path} holds files.")
        if not config_file.exists():
            raise ValueError(f"Expected a run folder or an empty one, {path} holds other files and no config.yaml.")
        check_same_settings(path, yaml.safe_load(config_file.read_text()), config, MAY_CHANGE)

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
        """Folder of the model whose worst task did best on held-out data."""
        return self.path / "best"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures of each evaluation."""
        return self.path / "pictures"
