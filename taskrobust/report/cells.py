"""A table of numbers by row and label, whatever it is written as."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Args:
        value: A number, a name, or None where there is none.
        spread: Standard deviation over runs, NaN where there is none.
        best: Whether it is the best value of its row.
        close: Whether it is a gain within the spread.
    """

    value: float | str | None
    spread: float = math.nan
    best: bool = False
    close: bool = False


@dataclass(frozen=True)
class Row:
    """A row, with a cell for each column.

    Args:
        name: Name of the row.
        cells: The cells.
        spec: Format of its numbers, such as ``+.1f``.
        starts_section: Whether a line is drawn above it.
    """

    name: str
    cells: tuple[Cell, ...]
    spec: str = ".1f"
    starts_section: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: Name of its file.
        title: What it shows, with the unit.
        columns: Labels of the columns.
        rows: The rows.
        notes: Sentences on how to read it.
        warnings: Sentences on what is missing or cannot be compared.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
