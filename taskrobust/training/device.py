"""Resolves the device, the precision and the number of threads of a run."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from taskrobust.training.config import DeviceConfig

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """A resolved device configuration.

    Args:
        config: The configuration, without ``auto`` and, on a CPU, with a number of threads.
        uses_cpu: Whether the run uses the CPU.
        precision_reason: Why this precision was chosen.
        threads_reason: Why this number of threads was chosen.
    """

    config: DeviceConfig
    uses_cpu: bool
    precision_reason: str
    threads_reason: str

    @property
    def precision(self) -> Precision:
        """The precision."""
        assert self.config.precision != "auto"
        return self.config.precision

    def recorded_in(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a run with the resolved device, as recorded in config.yaml."""
        return {**settings, "device": asdict(self.config)}


def resolve_device(config: DeviceConfig, run: Path | None = None) -> Device:
    """Resolve the device configuration: as recorded in the run folder, or by this machine.

    Args:
        config: The configuration.
        run: The run folder, which may exist.

    Raises:
        ValueError: If the configuration requires CUDA and there is none.
    """
    uses_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    if uses_cpu and config.precision == "fp16":
        raise ValueError("Expected a CUDA device for precision=fp16, got the CPU. Use bf16 or fp32.")
    before = _recorded(run)
    precision, precision_reason = _choose_precision(config, before, uses_cpu)
    threads, threads_reason = _choose_threads(config, before) if uses_cpu else (config.threads, "")
    if threads is not None:
        torch.set_num_threads(threads)
    return Device(
        config=DeviceConfig(**{**asdict(config), "precision": precision, "threads": threads}),
        uses_cpu=uses_cpu,
        precision_reason=precision_reason,
        threads_reason=threads_reason,
    )


def _recorded(run: Path | None) -> dict[str, Any]:
    """The recorded device settings of a run."""
    if run is None or not (run / "config.yaml").exists():
        return {}
    return dict(yaml.safe_load((run / "config.yaml").read_text()).get("device", {}))


def _choose_precision(config: DeviceConfig, before: Mapping[str, Any], uses_cpu: bool) -> tuple[Precision, str]:
    if config.precision != "auto":
        return config.precision, "as set"
    if before.get("precision", "auto") != "auto":
        return before["precision"], "as the run started"
    if uses_cpu:
        instructions = bf16_instructions()
        if instructions is None:
            return "fp32", "this CPU has no bfloat16 instructions"
        return "bf16", f"this CPU has {instructions}"
    if not torch.cuda.is_available():
        return "fp32", f"auto is bf16 on CUDA and CPUs only, not on {torch.accelerator.current_accelerator()}"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "this GPU has bfloat16"
    return "fp32", "this GPU has no bfloat16"


def _choose_threads(config: DeviceConfig, before: Mapping[str, Any]) -> tuple[int, str]:
    if config.threads is not None:
        return config.threads, "as set"
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads(), "OMP_NUM_THREADS"
    if before.get("threads") is not None:
        return before["threads"], "as the run started"
    return torch.get_num_threads(), "all cores"


def bf16_instructions() -> str | None:
    """The instructions of this CPU for bfloat16 matrix products. None if it would emulate them.

    On x86, ``torch.ops.mkldnn._is_mkldnn_bf16_supported`` is also true where AVX-512 emulates bfloat16, which is slower
    than float32.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        question = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        has_bf16 = question is not None and bool(question())
        return "ARM BF16" if has_bf16 else None
    for name, question_name in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        question = getattr(torch.cpu, question_name, None)  # no public name before torch 2.13
        if question is not None and question():
            return name
    return None
