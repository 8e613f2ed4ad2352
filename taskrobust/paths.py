import os
import re
from pathlib import Path


def filled_in(path: str | Path) -> str:
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
