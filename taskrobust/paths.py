import os
import re
from pathlib import Path


def filled_in(path: str | Path) -> str:
    """A path with its environment variables filled in.

    Raises:
        ValueError: If one is not set.
    """
    filled = os.path.expandvars(path)
    missing = re.findall(r"\$\{?(\w+)", filled)
    if missing:
        raise ValueError(f"Expected the environment variable {missing[0]} to be set, as {path} names it.")
    return filled
