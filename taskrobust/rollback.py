from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def undone_unless(finite: Tensor, module: nn.Module, undoes: bool) -> Iterator[None]:
    """Puts the module's state back after the block where ``finite`` is False, without looking at it."""
    before = [(buffer, buffer.clone()) for buffer in changing_buffers(module)] if undoes else []
    yield
    for buffer, old in before:
        buffer.copy_(torch.where(finite, buffer, old))


def changing_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers that a step changes: those of the state. Others are constants, which the graph may hold."""
    kept = module.state_dict().keys()
    return [buffer for name, buffer in module.named_buffers() if name in kept]
