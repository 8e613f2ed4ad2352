"""Device and dtype of the contract tests, set by TASKROBUST_TEST_DEVICE=cuda and TASKROBUST_TEST_DTYPE=bfloat16."""

import os
from typing import Any

import torch
from torch import Tensor

DEVICE = torch.device(os.environ.get("TASKROBUST_TEST_DEVICE", "cpu"))
DTYPE: torch.dtype = getattr(torch, os.environ.get("TASKROBUST_TEST_DTYPE", "float32"))
ROUNDING = max(1e-5, torch.finfo(DTYPE).eps)
"""Relative error of a gradient in that dtype."""


def randn(*shape: int, generator: torch.Generator) -> Tensor:
    """Standard normal values of a CPU generator, which are the same on every device."""
    return torch.randn(*shape, generator=generator, device="cpu", dtype=torch.float32).to(DEVICE, DTYPE)


def rand(*shape: int, generator: torch.Generator) -> Tensor:
    """The same for uniform values."""
    return torch.rand(*shape, generator=generator, device="cpu", dtype=torch.float32).to(DEVICE, DTYPE)


def on_device(module: Any) -> Any:
    """A module on the device, unless it was built on the meta device."""
    state = [*module.parameters(), *module.buffers()]
    return module if any(value.is_meta for value in state) else module.to(DEVICE)
