from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from rich.console import Console

from taskrobust.vision.data import Images, TargetCollate
from taskrobust.vision.downstream.pictures import prediction_columns
from taskrobust.vision.downstream.saved import load_downstream
from taskrobust.vision.modalities import Modality
from taskrobust.vision.pictures import Picture
from taskrobust.vision.qualitative import comparison_figure
from taskrobust.vision.scenes import Scenes  # noqa: F401  # so that --test knows it by this name
from taskrobust.vision.transforms import CentreCrop, Transform


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
        runs: LABEL=FOLDER for each run folder of a fine-tuning. The best model of each is taken. All have the same task
            and the same size of images.
        test: The images.
        output: The PNG file.
        rows: Number of images.
        first: Number of the first image.
        size: Side of the pictures in pixels, a multiple of the patch's. None takes that of pre-training.

    Raises:
        ValueError: If a folder holds no fine-tuned model, or the models' task has no maps to draw.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, Figure 3.
    """
    figure: dict[str, Picture] = {}
    for run in runs:
        label, equals, place = run.partition("=")
        folder = Path(place if equals else label)
        model = load_downstream(folder / "best" if (folder / "best").is_dir() else folder).eval()
        modalities = model.inputs | model.task.targets()
        side = size or model.image_size
        images = test(modalities, CentreCrop(side))
        keys = [(index, 0) for index in range(first, min(first + rows, len(images)))]
        batch = TargetCollate(modalities, side)(images.__getitems__(keys))
        with torch.inference_mode():
            columns = prediction_columns(model, batch)
        if "prediction" not in columns:
            raise ValueError(f"Expected models that predict maps, got one for {model.task.name} in {folder}.")
        figure = figure or {"input": columns["input"], "truth": columns["target"]}
        figure[label if equals else folder.name] = columns["prediction"]
    output.parent.mkdir(parents=True, exist_ok=True)
    comparison_figure(figure, output)
    Console().print(f"Figure: {output}", soft_wrap=True, markup=False, highlight=False)
