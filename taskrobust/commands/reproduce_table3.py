"""The paper's Table 3: the cost of the weightings."""

from pathlib import Path

from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import carry_out
from taskrobust.reproduce.scales import Scale

_SIZES: dict[Scale, tuple[str, ...]] = {
    "demo": ("--mae.width", "192", "--mae.heads", "3", "--mae.decoder_width", "128", "--batch_size", "4"),
    "small": ("--mae.width", "384", "--mae.heads", "6", "--batch_size", "8", "--steps", "20"),
    "paper": ("--batch_size", "256", "--steps", "20"),
}
_MINUTES: dict[Scale, float | None] = {"demo": 1.0, "small": 8.0, "paper": None}


def reproduce_table3(scale: Scale = "demo", output: Path | None = None, dry_run: bool = False) -> None:
    """Reproduce Table 3: measure floating-point operations and time of a pre-training step with each weighting.

    The paper gives costs of 2T to 4T, with T that of plain training, without saying what was counted.

    Args:
        scale: ``demo``: an encoder of width 192. ``small``: width 384. ``paper``: ViT-B with 256 images, on CUDA.
        output: Folder of the results. Defaults to runs/table3-SCALE.
        dry_run: Whether to print the plan with its commands and estimated time, and run nothing.

    Raises:
        RuntimeError: If the measurement failed.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Table 3.
    """
    folder = output or Path(f"runs/table3-{scale}")
    measurement = Part(
        name="step-cost",
        command=("step-cost", "--output", str(folder), *_SIZES[scale]),
        finished=(),
        minutes=_MINUTES[scale],
    )
    carry_out(Plan(folder, [measurement]), 1, dry_run)
    if not dry_run:
        print((folder / "table.md").read_text())
