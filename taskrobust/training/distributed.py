from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin


@dataclass(kw_only=True)
class DeviceConfig:
    """Where the run computes, and in which precision. Several processes are started by ``torchrun``.

    Args:
        device: ``auto`` takes an accelerator where there is one.
        precision: ``no`` is float32. ``bf16`` and ``fp16`` compute matrix products in 16 bits; losses, risks and
            weights stay in float32. ``fp16`` needs CUDA.
        parallel: ``ddp`` keeps the whole model in every process, ``fsdp2`` a share of it. ``fsdp2`` needs CUDA.
        compile: Compiles the trunk of the model.
    """

    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    compile: bool = False


def make_accelerator(config: DeviceConfig, sharded_layers: list[str]) -> Accelerator:
    """Join the process group that torchrun describes, if it does, and choose device and precision.

    Args:
        config: See there.
        sharded_layers: Class names of the layers that ``fsdp2`` shards one by one.

    Raises:
        ValueError: If the configuration needs CUDA and there is none.
    """
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    needs_cuda = [f"{name}={value}" for name, value in _cuda_only(config) if cpu]
    if needs_cuda:
        raise ValueError(f"Expected a CUDA device for {' and '.join(needs_cuda)}, got the CPU.")
    plugin = None
    if config.parallel == "fsdp2":
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=sharded_layers
        )
    return Accelerator(
        cpu=cpu,
        mixed_precision=config.precision,
        fsdp_plugin=plugin,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def _cuda_only(config: DeviceConfig) -> list[tuple[str, str]]:
    settings = [("precision", config.precision), ("parallel", config.parallel)]
    return [(name, value) for name, value in settings if value in ("fp16", "fsdp2")]
