from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from taskrobust._io.tables import markdown_table
from taskrobust.report.render import show_table
from taskrobust.studies.pretext.cifar10 import (
    SLIDES,
    Cifar10Protocol,
    Split,
    identity,
    measure_pooled,
    measure_processor,
    measure_ssl,
    read_cifar10,
)
from taskrobust.studies.pretext.plots import plot_cifar10
from taskrobust.studies.results import Cells, print_paths, save


def pretext_cifar10(
    output: Path = Path("runs/pretext/cifar10"),
    data: str = "$TASKROBUST_DATA/cifar10",
    extra: list[int] = [1000, 2000, 3000, 4000, 5000],  # noqa: B006  # read only
    protocol: Cifar10Protocol = Cifar10Protocol(),  # noqa: B008
) -> None:
    """Measure accuracies on CIFAR-10 with processors trained on n0 downstream images, and without, as in the slides.

    The training images are split into a tenth for the processor, six tenths without labels for the pretext task and
    three tenths for the linear probe. Existing results in cells/ are reused. Writes cells/, table.md, table.json and
    accuracies.png.

    Args:
        output: Folder for the results.
        data: Folder of train.parquet and test.parquet with the columns img {bytes, path} and label.
        extra: Values of n0.
        protocol: Settings that all cells share.

    Raises:
        ValueError: If the folder holds cells computed with other settings or data, or n0 is out of range.
    """
    console = Console()
    if not extra or min(protocol.number_of_extra(n0) for n0 in extra) < 1:
        raise ValueError(f"Expected values of n0 of at least one image at scale {protocol.scale:g}, got {extra}.")
    cells = Cells(output / "cells", asdict(protocol) | identity(data))
    train, test = read_cifar10(data)
    split = Split.of(train, test, protocol.scale, protocol.seed)
    del train, test
    if protocol.number_of_extra(max(extra)) > len(split.extra[0]):
        most = round(len(split.extra[0]) / protocol.scale)
        raise ValueError(f"Expected n0 of at most {most}, a tenth of the training images, got {max(extra)}.")

    def cell(name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        result = cells.get(name, compute)
        full, half = (result[row]["hidden"] for row in ("full", "half"))
        console.print(f"{name}: full {full:.2%}, half {half:.2%}, computed in {result['seconds']:.0f} s")
        return result

    representations = cells.folder / "ssl.pt"
    ssl = cell("ssl", lambda: measure_ssl(split, protocol, representations))
    pooled = {
        n0: cells.get(f"pooled-{n0}", partial(measure_pooled, split, protocol, representations, n0)) for n0 in extra
    }
    ssl["pooled"] = {row: {str(n0): cell[row] for n0, cell in pooled.items()} for row in ("full", "half")}
    processors = {n0: cell(f"n0-{n0}", partial(measure_processor, split, protocol, n0)) for n0 in extra}
    rows = _cifar10_rows(ssl, processors)
    header = ["", *(f"n0 = {n0}" for n0 in extra), "SSL"]
    show_table(header, rows, "Accuracy on CIFAR-10, %")
    save(output, "table", [markdown_table(header, rows)], {"ssl": ssl, "processors": processors})
    plot_cifar10(ssl, processors, output / "accuracies.png")
    print_paths(output, "table", "accuracies.png")


def _cifar10_rows(ssl: dict[str, Any], processors: dict[int, dict[str, Any]]) -> list[list[str]]:
    rows = []
    for row in ("full", "half"):
        for field, label in (
            ("hidden", "processor, then SSL"),
            ("predicted", "the same, probe on its predictions"),
            ("processed", "probe on f(x)"),
        ):
            of_ssl = f"{100 * ssl[row][field]:.2f}" if field in ssl[row] else ""
            rows.append([f"{row}: {label}", *(f"{100 * c[row][field]:.2f}" for c in processors.values()), of_ssl])
        pooled = [f"{100 * ssl['pooled'][row][str(n0)]:.2f}" for n0 in processors]
        rows.append([f"{row}: plain SSL, n0 more labels", *pooled, ""])
        slides = [f"{SLIDES[row][str(n0)]:.2f}" if str(n0) in SLIDES[row] else "" for n0 in processors]
        rows.append([f"{row}: the slides", *slides, f"{SLIDES[row]['ssl']:.2f}"])
    return rows
