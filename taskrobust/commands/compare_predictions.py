from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from taskrobust.vision.data import Images, TargetCollate
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import CenterCrop, Transform

if TYPE_CHECKING:
    from taskrobust.vision.downstream.model import DownstreamModel
    from taskrobust.vision.figures import Picture


def compare_predictions(
    runs: list[str],
    test: Callable[[Mapping[str, Modality], Transform], Images],
    output: Path = Path("predictions.png"),
    *,
    rows: int = 4,
    first: int = 0,
    size: int | None = None,
) -> None:
    """Draw what several fine-tuned models predict of the same images: Figure 3 of the paper.

    A row is an image, a column a model; the first columns are the input and the truth.

    Args:
        runs: LABEL=FOLDER for each run folder of a fine-tuning. The best model of each is taken. All have the same
            task.
        test: The images.
        output: The PNG file.
        rows: Number of images.
        first: Number of the first image.
        size: Side of the pictures in pixels, a multiple of the patch's. Defaults to that of pre-training, which
            must then be the same for all models.

    Raises:
        ValueError: If a folder holds no fine-tuned model, a label comes twice, models differ in their task or size, or
            their task has no maps to draw.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Figure 3.
    """
    from taskrobust.vision.figures import comparison_figure, prediction_columns

    models = _load(runs)
    sides = {label: size or model.image_size for label, model in models.items()}
    if len(set(sides.values())) > 1:
        raise ValueError(f"Expected models of one size of images, got {sides}. Choose one with --size.")
    figure: dict[str, Picture] = {}
    for label, model in models.items():
        modalities = model.inputs | model.task.targets()
        side = sides[label]
        images = test(modalities, CenterCrop(side))
        keys = [(index, 0) for index in range(first, min(first + rows, len(images)))]
        batch = TargetCollate(modalities, side)(images.__getitems__(keys))
        with torch.inference_mode():
            columns = prediction_columns(model, batch)
        if "prediction" not in columns:
            raise ValueError(f"Expected models that predict maps, got {label} for {model.task.name}.")
        figure = figure or {"input": columns["input"], "truth": columns["target"]}
        figure[label] = columns["prediction"]
    output.parent.mkdir(parents=True, exist_ok=True)
    comparison_figure(figure, output)
    Console().print(f"Figure: {output}", soft_wrap=True, markup=False, highlight=False)


def _load(runs: list[str]) -> "dict[str, DownstreamModel]":
    """The best models by label, all of the same task."""
    from taskrobust.vision.downstream.hub import load_downstream

    models: dict[str, DownstreamModel] = {}
    for run in runs:
        label, equals, place = run.partition("=")
        folder = Path(place if equals else label)
        label = label if equals else folder.name
        if label in models:
            raise ValueError(f"Expected a label once, got {label!r} again for {folder}. Choose another: LABEL=FOLDER.")
        models[label] = load_downstream(folder / "best" if (folder / "best").is_dir() else folder).eval()
    first, *others = models.items()
    for label, model in others:
        ours, theirs = (_predicted(of_label) for of_label in (first[1], model))
        if ours != theirs:
            raise ValueError(f"Expected models of one task, got {ours} as {first[0]} and {theirs} as {label}.")
    return models


def _predicted(model: "DownstreamModel") -> str:
    """The kind of predictions of a model, such as labels and their number of classes."""
    return f"{model.task.name} {model.task.targets()}"
