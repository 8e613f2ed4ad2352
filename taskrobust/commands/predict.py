from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from PIL import Image
from rich.console import Console

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1
from taskrobust.vision.data import MaeCollate
from taskrobust.vision.data.base import DAMAGED, Sample, open_image
from taskrobust.vision.mae.masking import TokenBudget
from taskrobust.vision.modalities import Rgb
from taskrobust.vision.transforms.crops import CenterCrop

if TYPE_CHECKING:
    from taskrobust.vision.mae.model import MultiModalMae


def predict(
    model: Path,
    image: list[Path],
    output: Path = Path("predictions"),
    visible: Annotated[int | None, AT_LEAST_1] = None,
    seed: Annotated[int, AT_LEAST_0] = 0,
) -> None:
    """Predict all maps of color images with a pre-trained Multi-Modal Mask MAE.

    For each image a folder in ``output`` holds grid.png (the masked image, predictions and what is known) and the
    predicted maps, one file each; what is there is replaced. A large square in the middle of the image is taken.

    Args:
        model: A run folder, whose final model is used, or a model's folder.
        image: Files of color images.
        output: Folder of the pictures.
        visible: Number of visible patches of the image. Defaults to that of training.
        seed: Names the mask.
    """
    from taskrobust.vision.figures import predicted_pictures, prediction_grid
    from taskrobust.vision.mae.hub import load_model

    stems = [path.stem for path in image]
    if len(set(stems)) < len(stems):
        raise ValueError(f"Expected images of different names, since each gets a folder, got {stems}.")
    if not model.is_dir():
        raise ValueError(f"Expected a run folder with a finished model, or a model's folder, got {model}.")
    trained = load_model(model).eval()
    names = [name for name, modality in trained.inputs.items() if isinstance(modality, Rgb)]
    if not names:
        raise ValueError(f"Expected a model that reads color images, {model} reads {list(trained.inputs)}.")
    if visible is not None:
        if not 0 < visible <= trained.patches:
            raise ValueError(f"Expected 1 to {trained.patches} visible patches, got {visible}.")
        trained.budget = TokenBudget(visible)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    trained.to(device)
    collate = MaeCollate(trained.modalities, trained.image_size, mask_seed=seed)
    console = Console()
    for number, path in enumerate(image):
        sample = _read(path, names[0], trained)
        batch = {key: value.to(device) for key, value in collate([((number, 0), sample)]).items()}
        to = output / path.stem
        to.mkdir(parents=True, exist_ok=True)
        Image.fromarray(prediction_grid(trained, batch)).save(to / "grid.png")
        for task, picture in predicted_pictures(trained, batch).items():
            Image.fromarray(picture[0]).save(to / f"{task}.png")
        console.print(f"{path}: {to}", markup=False, highlight=False, soft_wrap=True)


def _read(path: Path, name: str, model: "MultiModalMae") -> Sample:
    modality = model.inputs[name]
    try:
        with open_image(path) as file:
            file.load()
            decoded = modality.decode(file)
    except DAMAGED as error:
        raise ValueError(f"{path} cannot be read as an image: {error}.") from error
    crop = CenterCrop(model.image_size)({name: decoded}, (0, 0))[name]
    return {name: modality.pack(crop)}
