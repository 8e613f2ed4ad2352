import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from taskrobust.faults import OnNonfinite
from taskrobust.loss import MultiTaskLoss
from taskrobust.risk import RiskEstimator
from taskrobust.synthetic.rooms import ScenesConfig, prepare_scenes
from taskrobust.training.config import LoopConfig
from taskrobust.training.device import DeviceConfig, resolve_device
from taskrobust.training.evaluation import Evaluation
from taskrobust.training.optim import OptimConfig
from taskrobust.training.run_folder import Resume, RunFolder
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
class MaeShape:
    """The size of the model, and what it sees of a sample. The defaults are the paper's, with ViT-B.

    Args:
        image_size: Side of the maps in pixels.
        patch_size: Side of a patch in pixels.
        width: Length of the encoder's tokens.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Length of the decoders' queries.
        decoder_depth: Blocks of a decoder.
        decoder_heads: Attention heads of the decoders.
        visible: Patches that the encoder sees of a sample, over all maps.
        budget: How they are shared out over the maps: ``dirichlet`` draws the shares anew for each sample, ``uniform``
            takes any patches, ``fixed`` takes the ``proportions``.
        concentration: Parameter of the Dirichlet distribution. 1 takes all shares as equally likely.
        proportions: Shares of the maps, for the fixed budget.
        memory_efficient: Goes forward and backward through one decoder at a time and computes some of the encoder's
            activations again: the same gradients in less memory.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_width: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    visible: int = 98
    budget: Budget = "dirichlet"
    concentration: float = 1.0
    proportions: list[float] | None = None
    memory_efficient: bool = False


@dataclass(kw_only=True)
class CropConfig:
    """The random crops of the training images.

    Args:
        scale: Smallest and largest share of an image's area.
        ratio: Smallest and largest width over height.
        flip: Probability of mirroring left and right.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5


def pretrain_mae(
    train: Callable[[Mapping[str, Modality], Transform], Images],
    held_out: Callable[[Mapping[str, Modality], Transform], Images],
    output: Path,
    *,
    modalities: dict[str, Modality],
    scenes: ScenesConfig | None = None,
    weighting: Weighting = SoftmaxMinimax(),  # noqa: B008
    risk: RiskEstimator = RiskEstimator(),  # noqa: B008
    mae: MaeShape = MaeShape(),  # noqa: B008  # read only
    crop: CropConfig = CropConfig(),  # noqa: B008
    init_from: str | None = None,
    held_out_samples: int | None = None,
    pictures: int = 6,
    loop: LoopConfig = LoopConfig(),  # noqa: B008
    optim: OptimConfig = OptimConfig(),  # noqa: B008
    device: DeviceConfig = DeviceConfig(),  # noqa: B008
    on_nonfinite: OnNonfinite = "raise",
    resume: Resume = "auto",
    resolved: dict[str, Any],
) -> Evaluation:
    """Pre-train a Multi-Modal Mask MAE: the masked patches of several maps of an image from the visible ones.

    The run folder holds config.yaml (with it the run goes on), metrics.jsonl, tensorboard/, pictures/ of predictions at
    each evaluation, checkpoints/, the final model in model/ and the one whose worst task did best on held-out images in
    best/; both load by ``MultiModalMae.from_pretrained``.

    Args:
        train: The training images and their maps, such as ``ImageFolders``, ``ImageShards`` or ``Scenes``.
        held_out: The held-out ones.
        output: The run folder.
        modalities: What is read and predicted, by name: ``Rgb``, ``Depth``, ``SemSeg``, ``NormRgb``. Each is a task.
        scenes: Rooms to generate before, where they are not there yet.
        weighting: How the tasks are weighed. Uniform is the average.
        risk: How the tasks' risks are smoothed and normalized before they are weighed.
        mae: The size of the model.
        crop: The random crops.
        init_from: A model to start from, of the same modalities and sizes: a run folder, a model's folder or a name on
            the hub. None starts from random parameters.
        held_out_samples: How many of the held-out images are evaluated, always with the same masks. None takes all.
        pictures: How many of them are drawn at each evaluation.
        loop: Steps, batches, logging.
        optim: Optimizer and learning rate.
        device: Device, precision and parallelism.
        on_nonfinite: What a loss that is NaN or infinite does: ``raise`` ends the run with an error that names the
            task, ``skip`` leaves such steps out.
        resume: ``auto`` goes on where an earlier run in the folder stopped. ``never`` wants an empty folder.
        resolved: The configuration in plain values, as it is kept in the run folder.
    """
    from taskrobust.training.distributed import make_accelerator
    from taskrobust.training.header import print_end, print_start
    from taskrobust.training.recipe import HeldOut, Recipe
    from taskrobust.training.trainer import Trainer
    from taskrobust.vision.figures import prediction_grid
    from taskrobust.vision.mae.blocks import Block
    from taskrobust.vision.mae.hub import start_from
    from taskrobust.vision.mae.model import MultiModalMae

    compute = resolve_device(device, output)
    if mae.memory_efficient and (device.parallel == "fsdp2" or compute.precision == "fp16"):
        raise ValueError(
            "Expected parallel=ddp and precision bf16 or fp32 with memory_efficient, got "
            f"{device.parallel} and {compute.precision}."
        )
    if scenes is not None:
        prepare_scenes(scenes)
    accelerator = make_accelerator(compute)
    with accelerator.main_process_first():
        run = RunFolder(output, compute.recorded_in(resolved), resume, accelerator.is_main_process)
        random_crop = JointCrop(mae.image_size, scale=crop.scale, ratio=crop.ratio, flip=crop.flip, seed=loop.seed)
        train_images = train(modalities, random_crop)
        held_out_images = held_out(modalities, CenterCrop(mae.image_size))
    if held_out_samples is None:
        held_out_samples = len(held_out_images)
    elif not 0 < held_out_samples <= len(held_out_images):
        raise ValueError(f"Expected 1 to {len(held_out_images)} held-out samples, got {held_out_samples}.")
    held_out_collate = MaeCollate(modalities, mae.image_size, mask_seed=_HELD_OUT_MASK_SEED)

    torch.manual_seed(loop.seed)
    model = MultiModalMae(modalities, **asdict(mae))
    if init_from is not None:
        start_from(model, init_from)
    if device.compile:
        model.encoder.compile()
    criterion = MultiTaskLoss(
        model.tasks, copy.deepcopy(weighting), risk=copy.deepcopy(risk), on_nonfinite=on_nonfinite
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
        collate=MaeCollate(modalities, mae.image_size, mask_seed=loop.seed),
        held_out=HeldOut(samples=held_out_images, collate=held_out_collate, number=held_out_samples),
        export=export,
        task_counts=model.task_counts,
        layers=(Block,),
        pictures=draw if pictures > 0 else None,
    )
    trainer = Trainer(recipe, run, loop, optim, accelerator)
    print_start("pretrain-mae", trainer, compute)
    evaluation = trainer.train()
    for name, images in (("training", train_images), ("held-out", held_out_images)):
        report_unreadable(name, images, accelerator)
    rooms = ("--config", "configs/vision/finetune/rooms-depth.yaml", "--output", f"{output}-depth")
    print_end(
        trainer,
        [("finetune-vision", "--model", str(output), *rooms), ("compare", str(output), "ANOTHER_RUN")],
    )
    accelerator.end_training()
    return evaluation
