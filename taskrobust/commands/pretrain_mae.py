import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from torch import Tensor, nn

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1, MAY_CHANGE, SHARE, Checked, Range, recorded
from taskrobust.loss import MultiTaskLoss
from taskrobust.risk import RiskEstimator
from taskrobust.synthetic.rooms import ScenesConfig, prepare_scenes
from taskrobust.training.config import RunConfig, check_reference_model
from taskrobust.training.evaluation import Evaluation
from taskrobust.vision.data import Images, MaeCollate
from taskrobust.vision.data.base import report_unreadable
from taskrobust.vision.mae.masking import Budget
from taskrobust.vision.modalities import Modality
from taskrobust.vision.transforms.crops import CenterCrop, JointCrop, Transform
from taskrobust.weighting import SoftmaxMinimax, Weighting

if TYPE_CHECKING:
    from taskrobust.vision.figures import Picture

_HELD_OUT_MASK_SEED = 20231202


@dataclass(kw_only=True)
class MaeShape(Checked):
    """Size and masking of the model. The defaults are the paper's, with ViT-B.

    Args:
        image_size: Side of the maps in pixels.
        patch_size: Side of a patch in pixels.
        width: Length of the encoder's tokens.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Length of the decoders' queries.
        decoder_depth: Blocks of a decoder.
        decoder_heads: Attention heads of the decoders.
        visible: Visible patches per sample, over all maps.
        budget: How they are distributed over the maps: ``dirichlet`` draws shares for each sample, ``uniform`` draws
            patches of all maps, ``fixed`` uses the ``proportions``.
        concentration: Parameter of the Dirichlet distribution. 1 makes all shares equally likely.
        proportions: Shares of the maps, for the fixed budget.
        memory_efficient: Run and backpropagate one decoder at a time and recompute some of the encoder's activations:
            the same gradients with less memory.
    """

    group: ClassVar = "mae"
    image_size: Annotated[int, AT_LEAST_1] = 224
    patch_size: Annotated[int, AT_LEAST_1] = 16
    width: Annotated[int, AT_LEAST_1] = 768
    depth: Annotated[int, AT_LEAST_1] = 12
    heads: Annotated[int, AT_LEAST_1] = 12
    decoder_width: Annotated[int, AT_LEAST_1] = 256
    decoder_depth: Annotated[int, AT_LEAST_0] = 2
    decoder_heads: Annotated[int, AT_LEAST_1] = 8
    visible: Annotated[int, AT_LEAST_1] = 98
    budget: Budget = "dirichlet"
    concentration: Annotated[float, Range(0, open=True)] = 1.0
    proportions: list[float] | None = None
    memory_efficient: Annotated[bool, MAY_CHANGE] = False


@dataclass(kw_only=True)
class CropConfig(Checked):
    """The random crops of the training images.

    Args:
        scale: Smallest and largest share of an image's area.
        ratio: Smallest and largest width over height.
        flip: Probability of mirroring left and right.
    """

    group: ClassVar = "crop"
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: Annotated[float, SHARE] = 0.5


def pretrain_mae(
    train: Callable[[Mapping[str, Modality], Transform], Images],
    held_out: Callable[[Mapping[str, Modality], Transform], Images],
    output: Annotated[Path, MAY_CHANGE],
    *,
    modalities: dict[str, Modality],
    scenes: ScenesConfig | None = None,
    weighting: Weighting = SoftmaxMinimax(),  # noqa: B008
    risk: RiskEstimator = RiskEstimator(),  # noqa: B008
    mae: MaeShape = MaeShape(),  # noqa: B008  # read only
    crop: CropConfig = CropConfig(),  # noqa: B008
    init_from: str | None = None,
    reference_model: str | None = None,
    held_out_samples: Annotated[int | None, AT_LEAST_1] = None,
    pictures: Annotated[int, MAY_CHANGE, AT_LEAST_0] = 6,
    run: RunConfig = RunConfig(),  # noqa: B008
    resolved: dict[str, Any] | None = None,
) -> Evaluation:
    """Pre-train a Multi-Modal Mask MAE: the masked patches of several maps of an image from the visible ones.

    The run folder holds config.yaml, metrics.jsonl, tensorboard/, pictures/ of predictions at each evaluation,
    checkpoints/, the final model in model/ and the model with the best worst task on held-out images in best/. Load
    both with ``MultiModalMae.from_pretrained``.

    Args:
        train: The training images and their maps, such as ``ImageFolders``, ``ImageShards`` or ``Scenes``.
        held_out: The held-out ones.
        output: The run folder.
        modalities: The maps to read and predict, by name. Each is a task.
        scenes: Rooms to generate first, if they do not exist.
        weighting: The weighting of the tasks. Uniform averages them.
        risk: Smoothing and unit of the tasks' risks, their mean losses, and the reference of excess risks.
        mae: The size of the model.
        crop: The random crops.
        init_from: A model to start from, of the same modalities and sizes: a run folder, a model's folder or a name on
            the hub. None starts from random parameters.
        held_out_samples: Number of held-out images to evaluate, always with the same masks. None uses all.
        pictures: Number of them to draw at each evaluation.
        reference_model: A frozen model for excess risks with ``risk.reference`` ModelReference: its risks on the same
            samples are the reference. A run folder, a model's folder or a name on the hub.
        run: Loop, optimizer, device and the other settings of a run.
        resolved: The configuration in plain values, recorded in the run folder. Defaults to that of the arguments.
    """
    settings = resolved or recorded(locals())
    check_reference_model(risk, reference_model)

    from taskrobust.training.device import resolve_device
    from taskrobust.training.recipe import HeldOut, Recipe
    from taskrobust.training.run import Run
    from taskrobust.vision.figures import prediction_grid
    from taskrobust.vision.mae.blocks import Block
    from taskrobust.vision.mae.hub import start_from
    from taskrobust.vision.mae.model import MultiModalMae

    output = Path(output)
    precision, parallel = resolve_device(run.device, output).precision, run.device.parallel
    if mae.memory_efficient and (parallel == "fsdp2" or precision == "fp16"):
        raise ValueError(
            f"Expected parallel=ddp and precision bf16 or fp32 with memory_efficient, got {parallel} and {precision}."
        )
    if scenes is not None:
        prepare_scenes(scenes)
    started = Run.start(pretrain_mae, output, run, settings)
    accelerator, seed = started.accelerator, run.loop.seed
    with accelerator.main_process_first():  # which fills the caches
        random_crop = JointCrop(mae.image_size, scale=crop.scale, ratio=crop.ratio, flip=crop.flip, seed=seed)
        train_images = train(modalities, random_crop)
        held_out_images = held_out(modalities, CenterCrop(mae.image_size))
    if held_out_samples is None:
        held_out_samples = len(held_out_images)
    elif not 0 < held_out_samples <= len(held_out_images):
        raise ValueError(f"Expected 1 to {len(held_out_images)} held-out samples, got {held_out_samples}.")
    held_out_collate = MaeCollate(modalities, mae.image_size, mask_seed=_HELD_OUT_MASK_SEED)

    model = MultiModalMae(modalities, **asdict(mae))
    if init_from is not None:
        start_from(model, init_from)
    reference = None
    if reference_model is not None:
        reference = MultiModalMae(modalities, **asdict(mae))
        start_from(reference, reference_model)
    if run.device.compile:
        model.encoder.compile()
    criterion = MultiTaskLoss(
        model.tasks, copy.deepcopy(weighting), risk=copy.deepcopy(risk), on_nonfinite=run.on_nonfinite
    )

    def draw(trained: nn.Module) -> "dict[str, Picture]":
        assert isinstance(trained, MultiModalMae)
        samples = held_out_images.__getitems__([(index, 0) for index in range(min(pictures, held_out_samples))])
        batch = held_out_collate(samples)
        return {"predictions": prediction_grid(trained, {k: v.to(accelerator.device) for k, v in batch.items()})}

    def export(trained: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        whole = MultiModalMae(modalities, **asdict(mae))
        whole.load_state_dict(state)
        whole.save_pretrained(folder)  # type: ignore[operator]

    recipe = Recipe(
        model=model,
        criterion=criterion,
        data=train_images,
        collate=MaeCollate(modalities, mae.image_size, mask_seed=seed),
        held_out=HeldOut(samples=held_out_images, collate=held_out_collate, number=held_out_samples),
        export=export,
        task_counts=model.task_counts,
        layers=(Block,),
        reference=reference,
        pictures=draw if pictures > 0 else None,
    )
    trainer = started.trainer(recipe)
    evaluation = trainer.train()
    for name, images in (("training", train_images), ("held-out", held_out_images)):
        report_unreadable(name, images, accelerator)
    rooms = ("--config", "configs/vision/finetune/rooms-depth.yaml", "--output", f"{output}-depth")
    started.end(
        trainer,
        [("finetune-vision", "--model", str(output), *rooms), ("compare", str(output), "ANOTHER_RUN")],
    )
    return evaluation
