import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, cast

from torch import Tensor, nn

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1, MAY_CHANGE, PROBABILITY, Checked, recorded
from taskrobust.loss import MultiTaskLoss
from taskrobust.training.config import RunConfig
from taskrobust.vision.data import Images, TargetCollate
from taskrobust.vision.data.base import report_unreadable
from taskrobust.vision.downstream.augmentation import Augmentation, Crops
from taskrobust.vision.downstream.base import DownstreamTask
from taskrobust.vision.downstream.rooms import RoomsConfig, prepare_rooms, rooms_of
from taskrobust.vision.modalities import Depth, Modality, Rgb
from taskrobust.vision.transforms.crops import CenterCrop, Transform
from taskrobust.weighting import Uniform

if TYPE_CHECKING:
    from taskrobust.vision.downstream.model import DownstreamModel
    from taskrobust.vision.figures import Picture

NO_MODEL: Final = "none"
"""The model that stands for no pre-training."""

_MODALITIES: Final[dict[str, Modality]] = {"rgb": Rgb(), "depth": Depth()}
_TABLE_2: Final = {"classification": "Cls", "semseg": "Semseg", "depth": "Depth"}
"""Titles of the tasks in the paper's Table 2, in its order."""


@dataclass(kw_only=True)
class EncoderShape(Checked):
    """The size of an encoder that was not pre-trained. The defaults are ViT-B.

    Args:
        image_size: Side in pixels of the maps that its positions are for.
        patch_size: Side of a patch in pixels.
        width: Length of its tokens.
        depth: Number of blocks.
        heads: Attention heads.
    """

    group: ClassVar = "encoder"
    image_size: Annotated[int, AT_LEAST_1] = 224
    patch_size: Annotated[int, AT_LEAST_1] = 16
    width: Annotated[int, AT_LEAST_1] = 768
    depth: Annotated[int, AT_LEAST_1] = 12
    heads: Annotated[int, AT_LEAST_1] = 12


def finetune_vision(
    model: str,
    task: DownstreamTask,
    output: Annotated[Path, MAY_CHANGE],
    *,
    train: Callable[[Mapping[str, Modality], Transform], Images] | None = None,
    held_out: Callable[[Mapping[str, Modality], Transform], Images] | None = None,
    test: Callable[[Mapping[str, Modality], Transform], Images] | None = None,
    rooms: RoomsConfig | None = None,
    inputs: list[str] = ["rgb"],  # noqa: B006  # read only
    encoder: EncoderShape = EncoderShape(),  # noqa: B008
    size: Annotated[int | None, AT_LEAST_1] = None,
    augmentation: Augmentation = Crops(),  # noqa: B008
    drop_path: Annotated[float, PROBABILITY] = 0.0,
    pictures: Annotated[int, MAY_CHANGE, AT_LEAST_0] = 6,
    run: RunConfig = RunConfig(),  # noqa: B008
    resolved: dict[str, Any] | None = None,
) -> None:
    """Fine-tune a pre-trained encoder for one task: image classes, semantic segmentation or depth.

    The run folder holds config.yaml, metrics.jsonl, tensorboard/, pictures/ of predictions at each evaluation,
    checkpoints/ until the run is finished, the final model in model/, the one with the best score on the held-out
    images in best/, and in the end results.json: the scores of the best model on the test images. The test images are
    used for nothing else, and a run that has results is not run again. All scores are of the largest square in the
    middle of an image, resized to the size of the crops.

    Args:
        model: The pre-trained model: a run folder, a model's folder or a name on the hub. ``none`` starts from random
            parameters.
        task: The downstream task.
        output: The run folder.
        train: The training images and their targets.
        held_out: The images that select the best model.
        test: The images of results.json. Defaults to the held-out ones.
        rooms: Generated rooms, in place of ``train`` and ``held_out``, and of ``test`` if that is None. Missing rooms
            are generated.
        inputs: The maps that the model reads, such as ``rgb`` or ``rgb`` and ``depth``. Maps are predicted on the grid
            of the first.
        encoder: The size of the encoder where ``model`` is ``none``.
        size: Side of the crops in pixels, a multiple of the patch's. Defaults to that of pre-training.
        augmentation: Augmentation of the training images.
        drop_path: Probability of skipping the encoder's last block for a sample in training. It decreases linearly
            to 0 at the first block.
        pictures: Number of held-out images to draw at each evaluation, if maps are predicted.
        run: Loop, optimizer, device and the other settings of a run.
        resolved: The configuration in plain values, recorded in the run folder. Defaults to that of the arguments.

    Raises:
        ValueError: If there are both ``rooms`` and other images to train on, or neither, or settings, images and model
            do not fit together.
    """
    settings = resolved or recorded(locals())

    from taskrobust.training.distributed import any_rank
    from taskrobust.training.recipe import HeldOut, Recipe
    from taskrobust.training.results import RESULTS, Result, write_results
    from taskrobust.training.run import Run
    from taskrobust.vision.downstream.hub import load_parameters, save_downstream
    from taskrobust.vision.downstream.model import DownstreamModel
    from taskrobust.vision.figures import prediction_sheet
    from taskrobust.vision.mae.blocks import Block

    if rooms is not None:
        if train is not None or held_out is not None:
            raise ValueError("Expected rooms, or train and held_out, got both. Leave the one out (--rooms null).")
        prepare_rooms(rooms)
        train, held_out, test = rooms_of(rooms, "train"), rooms_of(rooms, "held-out"), test or rooms_of(rooms, "test")
    if train is None or held_out is None:
        raise ValueError("Expected images to train on and to choose the best model by: rooms, or train and held_out.")
    output = Path(output)
    started = Run.start(finetune_vision, output, run, settings)
    accelerator, seed = started.accelerator, run.loop.seed
    if any_rank(accelerator, (output / RESULTS).exists()):
        accelerator.print(f"{output / RESULTS} is there: the run is finished.")
        accelerator.end_training()
        return
    with accelerator.main_process_first():
        tuned = _make_model(model, task, inputs, encoder)
        side = size or tuned.image_size
        if side % tuned.patch_size:
            raise ValueError(f"Expected a size that is a multiple of the patch's {tuned.patch_size}, got {side}.")
        modalities = tuned.inputs | task.targets()
        train_images = train(modalities, augmentation.transform(side, seed))
        held_out_images = held_out(modalities, CenterCrop(side))
        test_images = held_out_images if test is None else test(modalities, CenterCrop(side))
    task.check({"train": train_images, "held_out": held_out_images, "test": test_images})
    tuned.encoder.set_drop_path(drop_path if task.trains_encoder else 0.0)
    if run.device.compile:
        for block in tuned.encoder.blocks:
            block.compile()
    held_out_collate = TargetCollate(modalities, side)

    def draw(trained: nn.Module) -> "dict[str, Picture]":
        keys = [(index, 0) for index in range(min(pictures, len(held_out_images)))]
        batch = held_out_collate(held_out_images.__getitems__(keys))
        on_device = {name: value.to(accelerator.device) for name, value in batch.items()}
        return {"predictions": prediction_sheet(cast(DownstreamModel, trained), on_device)}

    def export(trained: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        save_downstream(cast(DownstreamModel, trained), state, folder)

    def load(trained: nn.Module, folder: Path) -> None:
        load_parameters(cast(DownstreamModel, trained), folder)

    split = "held_out" if test is None else "test"
    recipe = Recipe(
        model=tuned,
        criterion=MultiTaskLoss([task.name], Uniform(), on_nonfinite=run.on_nonfinite),
        data=train_images,
        collate=TargetCollate(modalities, side, augmentation.mixing(task, seed)),
        held_out=HeldOut(samples=held_out_images, collate=held_out_collate, scores=task.scores),
        export=export,
        task_counts=tuned.task_counts,
        layers=(Block,),
        selection=task.headline,
        reports={split: HeldOut(samples=test_images, collate=held_out_collate, scores=task.scores)},
        load=load,
        depth_of=tuned.depth_of,
        pictures=draw if pictures > 0 and task.targets() else None,
    )
    trainer = started.trainer(recipe)
    trainer.train()
    scores = trainer.reported[split].scores
    result = Result(
        task=task.name,
        title=_TABLE_2.get(task.name, task.name),
        place=[*_TABLE_2, task.name].index(task.name),
        metric=task.headline,
        value=scores[task.headline],
        metrics=scores,
        split=split,
        data=f"{test_images.name} at {side} px",
        model="best",
        step=trainer.progress.best_step,
        seed=seed,
        pretrained=model,
    )
    if accelerator.is_main_process:
        write_results(output, [result])
        shutil.rmtree(started.folder.checkpoints)  # which are large, and of no more use
    accelerator.print(
        f"{task.headline} on the {split.replace('_', '-')} images: {result.value:.4f} (step {result.step})"
    )
    for name, images in (("training", train_images), ("held-out", held_out_images), ("test", test_images)):
        report_unreadable(name, images, accelerator)
    started.end(trainer, [("compare", str(output), "ANOTHER_RUN")])


def _make_model(model: str, task: DownstreamTask, inputs: list[str], encoder: EncoderShape) -> "DownstreamModel":
    """The encoder with a new head."""
    from taskrobust.vision.downstream.model import DownstreamModel
    from taskrobust.vision.mae.hub import load_model

    if model != NO_MODEL:
        return DownstreamModel.from_mae(load_model(model), task, inputs)
    unknown = [name for name in inputs if name not in _MODALITIES]
    if unknown:
        raise ValueError(f"Expected inputs among {list(_MODALITIES)} without a pre-trained model, got {unknown}.")
    return DownstreamModel(task, {name: _MODALITIES[name] for name in inputs}, **vars(encoder))
