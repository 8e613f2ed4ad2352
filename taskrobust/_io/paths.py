import difflib
import os
import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""The configurations that come with taskrobust: within the installed package, or at the top of a checkout."""


def find_config(name: str | Path) -> Path:
    """Find a configuration file: your own, or one that comes with taskrobust.

    Args:
        name: A path, or a name among ``config_names()``. A file at that path comes first.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    names = config_names()
    if path.as_posix() in names:
        return CONFIGS.parent / path
    close = difflib.get_close_matches(path.as_posix(), names, n=1)
    suggestion = f"did you mean {close[0]}?" if close else f"use a path, or one of {', '.join(names)}."
    raise ValueError(
        f"Expected a configuration file, got {name}, which is neither at {path.absolute()} "
        f"nor among those of taskrobust in {CONFIGS}: {suggestion}"
    )


def config_names() -> list[str]:
    """Names of the configurations that come with taskrobust, such as ``configs/nlp/demo.yaml``."""
    return sorted(path.relative_to(CONFIGS.parent).as_posix() for path in CONFIGS.rglob("*.yaml"))


def expand_variables(path: str | Path) -> str:
    """A path with its environment variables filled in.

    Raises:
        ValueError: If one is not set.
    """
    missing = unset_variables(str(path))
    if missing:
        raise ValueError(f"Expected the environment variable {missing[0]} to be set, as {path} names it.")
    return os.path.expandvars(path)


def unset_variables(text: str) -> list[str]:
    """Names of the environment variables in a text that are not set."""
    return re.findall(r"\$\{?(\w+)", os.path.expandvars(text))
