"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    r"""A table in Markdown, ending with a newline: the first column flush left, the others flush right.

    Args:
        header: Names of the columns.
        rows: Cells, row by row.
        title: Line above the table; empty for none.

    Example:
        >>> print(markdown_table(["task", "risk"], [["a|b", "0.5"]], title="Risks"), end="")
        Risks:
        <BLANKLINE>
        | task | risk |
        | --- | ---: |
        | a\|b | 0.5 |
    """
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    escaped = ([cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines)
    table = "".join(f"| {' | '.join(line)} |\n" for line in escaped)
    return f"{title}:\n\n{table}" if title else table
