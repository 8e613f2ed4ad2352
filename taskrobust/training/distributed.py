from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy


@dataclass(kw_only=True)
class DeviceConfig:
    """Where the run computes, and in which precision. Several processes are started by ``torchrun``.

    Args:
        device: ``auto`` takes an accelerator where there is one.
        precision: ``no`` is float32. ``bf16`` and ``fp16`` compute matrix products in 16 bits; losses, risks and
            weights stay in float32. ``fp16`` needs CUDA.
        parallel: ``ddp`` keeps the whole model in every process, ``fsdp2`` a share of it.
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
        ValueError: If the configuration needs CUDA, or several processes, and there is none.
    """
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    if cpu and config.precision == "fp16":
        raise ValueError("Expected a CUDA device for precision=fp16, got the CPU.")
    plugin = _sharding(sharded_layers) if config.parallel == "fsdp2" else None
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=config.precision,
        fsdp_plugin=plugin,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    if plugin is not None and accelerator.num_processes == 1:
        raise ValueError("Expected several processes, started by torchrun, for parallel=fsdp2, got one.")
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Accelerate passes its plugin over on CPUs, where PyTorch shards as anywhere else.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator


def _sharding(layers: list[str]) -> FullyShardedDataParallelPlugin:
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=layers,
        # Autocast chooses the precision of each operation, as without sharding. Accelerate's own policy would return
        # losses and counts in 16 bits.
        mixed_precision_policy=MixedPrecisionPolicy(),
        cpu_ram_efficient_loading=False,
    )


def any_rank(accelerator: Accelerator, failed: bool) -> bool:
    """Whether something failed on any rank. Called by all."""
    if accelerator.num_processes == 1:
        return failed
    flag = torch.tensor(int(failed), device=accelerator.device)
    dist.all_reduce(flag)
    return bool(flag)
