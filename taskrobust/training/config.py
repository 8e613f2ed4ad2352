"""The settings that every training run has."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1, MAY_CHANGE, PROBABILITY, Checked, Range
from taskrobust.faults import OnNonfinite
from taskrobust.risk import RiskEstimator
from taskrobust.training.callbacks import Callback
from taskrobust.training.run_folder import Resume


@dataclass(kw_only=True)
class LoopConfig(Checked):
    """How long a run trains, on how much data per step, and how often it reports.

    Args:
        steps: Optimizer steps. Defaults to 1000, or to ``epochs``.
        epochs: Passes over the training samples, in place of ``steps``.
        batch_size: Samples per forward pass and process.
        accumulation: Forward passes per step.
        window_weights: Where the task weights of an accumulation window come from. ``running``: the running risks of
            the steps before. ``two_pass``: the risks of the window itself, from an additional first pass without
            gradients, which costs about a third more time.
        seed: Seed of the parameters, the order of the data and dropout.
        log_every: Steps averaged into one line of metrics.jsonl.
        eval_every: Steps between evaluations on held-out data. None evaluates after each epoch. There is always an
            evaluation at the end.
        checkpoint_every: Steps between checkpoints. There is always a checkpoint at the end.
        workers: Processes that load data. 0 loads in the training process.
    """

    group: ClassVar = "loop"
    steps: Annotated[int | None, AT_LEAST_1] = None
    epochs: Annotated[float | None, Range(0, open=True)] = None
    # The batch size may change with the number of processes. The samples per step may not, which the trainer checks.
    batch_size: Annotated[int, MAY_CHANGE, AT_LEAST_1] = 32
    accumulation: Annotated[int, AT_LEAST_1] = 1
    window_weights: Literal["running", "two_pass"] = "running"
    seed: Annotated[int, AT_LEAST_0] = 0
    log_every: Annotated[int, MAY_CHANGE, AT_LEAST_1] = 10
    eval_every: Annotated[int | None, AT_LEAST_1] = 500
    checkpoint_every: Annotated[int, MAY_CHANGE, AT_LEAST_1] = 500
    workers: Annotated[int, MAY_CHANGE, AT_LEAST_0] = 0


@dataclass(kw_only=True)
class OptimConfig(Checked):
    """The optimizer, its learning rate schedule, and the average of the parameters.

    Args:
        lr: Peak learning rate of the model.
        weighting_lr: Learning rate of the parameters of the weighting, such as log-variances.
        betas: Decay rates of AdamW's moments.
        eps: Term that AdamW adds to the denominator.
        weight_decay: Decoupled weight decay of matrices. Biases, norms and the weighting are not decayed.
        schedule: Learning rate schedule after the warm-up.
        min_lr: Final learning rate of the cosine schedule.
        warmup_steps: Steps of linear warm-up from 0. Below 1: a fraction of all steps.
        layer_decay: Learning rate of each layer relative to the layer above it. 1 uses one rate for all. Needs a model
            whose layers are known, as in fine-tuning.
        clip_norm: Maximum norm of the gradient. 0 disables clipping.
        average: Average of the parameters that is evaluated and exported. ``ema``: exponential with ``ema_decay``.
            ``iterate``: the mean over all steps, for which Theorem 3.1 is proven.
        ema_decay: Decay of the exponential average per step.
    """

    group: ClassVar = "optim"
    lr: Annotated[float, AT_LEAST_0] = 1e-4
    weighting_lr: Annotated[float, AT_LEAST_0] = 1e-2
    betas: Annotated[tuple[float, float], PROBABILITY] = (0.9, 0.999)
    eps: Annotated[float, Range(0, open=True)] = 1e-6
    weight_decay: Annotated[float, AT_LEAST_0] = 0.01
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    min_lr: Annotated[float, AT_LEAST_0] = 0.0
    warmup_steps: Annotated[float, AT_LEAST_0] = 0
    layer_decay: Annotated[float, Range(0, 1, open=True)] = 1.0
    clip_norm: Annotated[float, AT_LEAST_0] = 0.0
    average: Literal["none", "ema", "iterate"] = "none"
    ema_decay: Annotated[float, PROBABILITY] = 0.999


@dataclass(kw_only=True)
class DeviceConfig(Checked):
    """The device, the precision and the parallelism. Start several processes with ``torchrun``.

    Args:
        device: ``auto`` uses an accelerator if there is one.
        precision: ``fp32`` is float32. ``bf16`` and ``fp16`` compute matrix products in 16 bits; losses, risks and
            weights stay in float32. ``fp16`` requires CUDA. ``auto`` is bf16 on GPUs and CPUs with instructions for it
            and fp32 elsewhere; a resumed run keeps the precision it was started with.
        parallel: ``ddp`` replicates the model in each process, ``fsdp2`` shards it.
        compile: Compile the trunk of the model.
        threads: CPU threads per process. Defaults to OMP_NUM_THREADS if it is set, as torchrun does, and to all cores
            otherwise. A run that resumes on a CPU keeps its number, since the last bits of its results depend on it.
    """

    group: ClassVar = "device"
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    compile: bool = False
    threads: Annotated[int | None, MAY_CHANGE, AT_LEAST_1] = None


@dataclass(kw_only=True)
class RunConfig:
    """The settings of a training run, whatever is trained.

    Args:
        loop: Steps, batches and logging.
        optim: Optimizer and learning rate.
        device: Device, precision and parallelism.
        on_nonfinite: What to do if a loss is NaN or infinite: ``raise`` ends the run with an error that names the task,
            ``skip`` skips the step.
        resume: ``auto`` resumes an earlier run in the folder. ``never`` requires an empty folder.
        resume_from: Step of the checkpoint to resume from; later checkpoints and metrics are deleted. The same command
            given again resumes from the newest one, as None does.
        trackers: Experiment trackers in addition to metrics.jsonl. Weights & Biases, MLflow and trackio must be
            installed, and log to files in the run folder unless their environment variables say otherwise.
        callbacks: Callbacks of the trainer, such as my_module.MyCallback.
    """

    loop: LoopConfig = field(default_factory=LoopConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    on_nonfinite: Annotated[OnNonfinite, MAY_CHANGE] = "raise"
    resume: Annotated[Resume, MAY_CHANGE] = "auto"
    resume_from: Annotated[int | None, MAY_CHANGE, AT_LEAST_1] = None
    trackers: Annotated[list[Literal["tensorboard", "wandb", "mlflow", "trackio"]], MAY_CHANGE] = field(
        default_factory=lambda: ["tensorboard"]
    )
    callbacks: Annotated[list[Callback], MAY_CHANGE] = field(default_factory=list)


def check_reference_model(risk: RiskEstimator, reference_model: str | None) -> None:
    """Check that there is a reference model if, and only if, the risks need one.

    Raises:
        ValueError: If not.
    """
    if risk.needs_reference_model and reference_model is None:
        raise ValueError("Expected --reference_model with the reference ModelReference, got none.")
    if not risk.needs_reference_model and reference_model is not None:
        raise ValueError(
            f"Expected --risk.reference ModelReference with --reference_model {reference_model}, got "
            f"{type(risk.reference).__name__ if risk.reference is not None else 'no reference'}."
        )
