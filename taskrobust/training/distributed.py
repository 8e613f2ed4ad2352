"""The process group of a run: joining, sharding, agreement and interruption."""

import signal
import time
from datetime import timedelta
from types import FrameType, TracebackType

import torch
import torch.distributed as dist
from accelerate import (
    Accelerator,
    DistributedDataParallelKwargs,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    PartialState,
)
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from taskrobust.training.device import Device

_PATIENCE = timedelta(hours=6)
"""Timeout of collectives: the first rank may have to copy a large data set into its cache."""


def make_accelerator(device: Device) -> Accelerator:
    """Join the process group of torchrun, if there is one, on the resolved device.

    Raises:
        ValueError: If the configuration requires several processes and there is one.
    """
    plugin = None
    if device.config.parallel == "fsdp2":
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    if not dist.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)  # that of an earlier run in the same process
    accelerator = Accelerator(
        cpu=device.uses_cpu,
        mixed_precision="no" if device.precision == "fp32" else device.precision,
        fsdp_plugin=plugin,
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=_PATIENCE),
        ],
    )
    if plugin is not None and accelerator.num_processes == 1:
        raise ValueError("Expected several processes, started by torchrun, for parallel=fsdp2, got one.")
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Accelerate passes its plugin over on CPUs, where PyTorch shards as anywhere else.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator


def shard(model: nn.Module, layers: tuple[type[nn.Module], ...], accelerator: Accelerator) -> None:
    """Shard every parameter over the ranks; each layer is gathered while it is used.

    Autocast chooses the precision of each operation, as without sharding. Accelerate's own wrapping would cast losses
    and counts to 16 bits, and fails on BERT, whose output layer shares its bias with the enclosing module.

    Args:
        model: The model.
        layers: Classes of the layers that are sharded separately.
        accelerator: Has the device and the number of processes.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    model.to(accelerator.device)
    for module in model.modules():
        if isinstance(module, layers):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def any_rank(accelerator: Accelerator, failed: bool) -> bool:
    """Whether something failed on any rank. Called by all ranks."""
    if accelerator.num_processes == 1:
        return failed
    flag = torch.tensor(int(failed), device=accelerator.device)
    dist.all_reduce(flag)
    return bool(flag)


def settle(accelerator: Accelerator) -> None:
    """Wait for gloo's threads before the process ends.

    After a collective, they release its tensors, which requires Python. If the interpreter is already shutting down,
    the process aborts ("terminate called without an active exception") although all work is done.
    """
    if accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        time.sleep(0.2)


_STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interruption:
    """Turns SIGTERM, SIGHUP and Ctrl-C into a request to stop between two steps.

    A second Ctrl-C stops at once. SIGHUP is the end of the terminal. It stays ignored under ``nohup``.

    Attributes:
        received: Name of the signal that this rank received.
        exit_code: Exit code for it; that of SIGTERM if another rank received one.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.exit_code = 143
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        for number in _STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop. Called by all ranks in the same step; they all get the same answer."""
        if not (dist.is_initialized() and dist.get_world_size() > 1):
            return self.received is not None
        flag = torch.tensor(int(self.received is not None), device=device)
        dist.all_reduce(flag)
        return bool(flag)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        self.exit_code = 128 + number


def ignore_in_worker(worker: int) -> None:
    """Ignore signals in a loader's worker, which the training loop ends."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
