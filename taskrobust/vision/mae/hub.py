from pathlib import Path

from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from taskrobust.vision.mae.blocks import CrossAttention, SelfAttention
from taskrobust.vision.mae.model import MultiModalMae


def load_model(place: str | Path) -> MultiModalMae:
    """The model of a run folder, of a model's own folder, or of a name on the hub.

    Raises:
        ValueError: If there is none.
    """
    folder = Path(place) / "model" if (Path(place) / "model").is_dir() else Path(place)
    if folder.is_dir() and not (folder / "config.json").exists():
        raise ValueError(f"Expected a run folder with a finished model, or a model's folder, got {place}.")
    try:
        model: MultiModalMae = MultiModalMae.from_pretrained(folder if folder.is_dir() else str(place))
        return model
    except (HFValidationError, RepositoryNotFoundError, OSError) as error:
        raise ValueError(
            f"Expected a run folder with a finished model, a model's folder or a name on the hub, got {place}: {error}"
        ) from error


def start_from(model: MultiModalMae, place: str | Path) -> None:
    """Load the parameters of a saved model of the same architecture.

    Raises:
        ValueError: If there is none, or it has other modalities or another shape.
    """
    saved = load_model(place)
    changed = [
        f"{name} is {there} there and {here} here"
        for name, here, there in (
            ("modalities", model.modalities, saved.modalities),
            ("image_size", model.image_size, saved.image_size),
            ("patch_size", model.patch_size, saved.patch_size),
            ("heads", _heads(model), _heads(saved)),
            ("the parameters' shapes", _shapes(model), _shapes(saved)),
        )
        if here != there
    ]
    if changed:
        raise ValueError(f"Expected the model in {place} to be of the same kind, but {'; '.join(changed)}.")
    model.load_state_dict(saved.state_dict())


def _heads(model: MultiModalMae) -> list[int]:
    attentions = (SelfAttention, CrossAttention)
    return [module.heads for module in model.modules() if isinstance(module, attentions)]


def _shapes(model: MultiModalMae) -> dict[str, list[int]]:
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()}
