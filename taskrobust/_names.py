"""Names as people type them."""

import difflib
import re
from collections.abc import Iterable


def snake_case(name: str) -> str:
    """The name of a class as options and configurations spell it.

    Example:
        >>> snake_case("SoftmaxMinimax"), snake_case("DWA"), snake_case("GroupDRO"), snake_case("GradNorm")
        ('softmax_minimax', 'dwa', 'group_dro', 'gradnorm')
    """
    return name.lower() if name in ("GradNorm", "DoReMi") else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def find_spelling(name: str, known: Iterable[str]) -> str | None:
    """The known name that differs from ``name`` in case, dashes and underscores only.

    Example:
        >>> find_spelling("softmax-minimax", ["Uniform", "SoftmaxMinimax"])
        'SoftmaxMinimax'
    """
    return {_plain(spelling): spelling for spelling in known}.get(_plain(name))


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence that suggests the closest known name, empty if none is close.

    Example:
        >>> did_you_mean("minmax", ["uniform", "softmax_minimax"])
        " Did you mean 'softmax_minimax'?"
        >>> did_you_mean("steps", ["optim.warmup_steps", "loop.steps"], prefix="--")
        " Did you mean '--loop.steps'?"
    """
    known = list(known)
    parts = {whole: whole for whole in known}
    for separators in (r"\.", r"[_. -]"):  # an option's own name counts more than a word of it
        for whole in known:
            for part in re.split(separators, whole):
                parts.setdefault(part, whole)
    close = difflib.get_close_matches(name, parts, n=1)
    return f" Did you mean {prefix + parts[close[0]]!r}?" if close else ""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
