"""Whether runs of fine-tuning had the same settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from taskrobust._io.settings import differences
from taskrobust.training.run_folder import may_change

_OF_ONE_RUN: Final = ("model", "encoder", "glue", "tasks", "seeds", "predict")
"""Settings in which comparable fine-tunings may differ, besides those that a run itself may change."""


def differing_settings(folders: Sequence[Path]) -> list[str]:
    """Sentences on how the settings of runs differ from those of the first, beyond the seed and what is fine-tuned.

    Args:
        folders: Run folders of one task. One without a config.yaml is not looked at.
    """
    configs = {folder: _settings(folder) for folder in folders if (folder / "config.yaml").exists()}
    first = next(iter(configs), None)
    found: dict[str, Path] = {}
    for folder, config in configs.items():
        if first is not None and (changed := differences(configs[first], config, may_change(first))):
            found.setdefault("; ".join(changed), folder)
    return [f"{changed} ({first} and {folder})." for changed, folder in found.items()]


def _settings(folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    settings = {name: value for name, value in config.items() if name not in _OF_ONE_RUN}
    settings["loop"] = {name: value for name, value in settings.get("loop", {}).items() if name != "seed"}
    return settings
