import os
from pathlib import Path

from taskrobust._io.paths import CONFIGS


def config(name: str) -> str:
    """Where a configuration file of this package is, as one would type it.

    Args:
        name: Its path in configs/, without the extension, such as ``vision/demo``.
    """
    path = CONFIGS / f"{name}.yaml"
    assert path.exists(), path
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def weighting_config(name: str, kind: str) -> str:
    """The configuration file of a weighting: its own for ``nlp`` or ``vision``, where there is one.

    Raises:
        ValueError: If there is none.
    """
    folder = CONFIGS / "weighting"
    for place in (CONFIGS / kind, folder):
        if (place / f"{name}.yaml").exists():
            return config(f"{place.name}/{name}")
    there = sorted(path.stem for path in folder.glob("*.yaml"))
    raise ValueError(f"Expected weightings among {there}, got {name!r}.")
