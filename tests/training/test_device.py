"""What a run computes on: precision and threads that are chosen, and kept by a run that resumes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from taskrobust.training import device as device_module
from taskrobust.training.config import DeviceConfig
from taskrobust.training.device import bf16_instructions, resolve_device
from taskrobust.training.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _same_threads_after() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this machine one of the given architecture, whose torch answers what is given and knows no more."""

    def make(machine: str = "x86_64", **answers: bool) -> None:
        monkeypatch.setattr("platform.machine", lambda: machine)
        for owner, name in (
            (torch.cpu, "_is_amx_tile_supported"),
            (torch.cpu, "_is_avx512_bf16_supported"),
            (torch.ops.mkldnn, "_is_mkldnn_bf16_supported"),
        ):
            if name in answers:
                monkeypatch.setattr(owner, name, lambda answer=answers[name]: answer, raising=False)
            elif owner is torch.cpu:
                monkeypatch.delattr(owner, name, raising=False)
            else:
                monkeypatch.setattr(owner, name, None, raising=False)

    return make


@pytest.mark.parametrize(
    ("machine", "answers", "expected"),
    [
        ("x86_64", {"_is_amx_tile_supported": True, "_is_avx512_bf16_supported": True}, "AMX"),
        ("AMD64", {"_is_amx_tile_supported": False, "_is_avx512_bf16_supported": True}, "AVX512-BF16"),
        ("x86_64", {"_is_amx_tile_supported": False, "_is_avx512_bf16_supported": False}, None),
        ("x86_64", {"_is_avx512_bf16_supported": True}, "AVX512-BF16"),
        ("x86_64", {}, None),
        ("aarch64", {"_is_mkldnn_bf16_supported": True}, "ARM BF16"),
        ("arm64", {"_is_mkldnn_bf16_supported": False}, None),
        ("aarch64", {}, None),
    ],
)
def test_instructions_are_those_that_torch_finds(
    cpu: Callable[..., None], machine: str, answers: dict[str, bool], expected: str | None
) -> None:
    cpu(machine, **answers)
    assert bf16_instructions() == expected


def test_x86_that_emulates_bfloat16_has_no_instructions(cpu: Callable[..., None]) -> None:
    cpu(_is_mkldnn_bf16_supported=True, _is_avx512_bf16_supported=False)
    assert bf16_instructions() is None


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Makes this a CPU with the given instructions."""
    return lambda name: monkeypatch.setattr(device_module, "bf16_instructions", lambda: name)


def test_auto_is_bf16_on_a_cpu_that_has_it_and_fp32_elsewhere(instructions: Callable[[str | None], None]) -> None:
    instructions("AMX")
    device = resolve_device(DeviceConfig(device="cpu"))
    assert (device.precision, device.precision_reason) == ("bf16", "this CPU has AMX")
    instructions(None)
    device = resolve_device(DeviceConfig(device="cpu"))
    assert (device.precision, device.precision_reason) == ("fp32", "this CPU has no bfloat16 instructions")
    assert resolve_device(DeviceConfig(device="cpu", precision="bf16")).precision_reason == "as set"


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_asks_cuda_without_emulation(supported: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: supported or including_emulation)
    device = resolve_device(DeviceConfig())
    assert (device.precision, device.uses_cpu, device.config.threads) == (precision, False, None)


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a CUDA device for precision=fp16, got the CPU"):
        resolve_device(DeviceConfig(device="cpu", precision="fp16"))


def start(run: Path, **settings: Any) -> Any:
    """Choose, and open the run folder as the commands do."""
    device = resolve_device(DeviceConfig(device="cpu", **settings), run)
    RunFolder(run, "toy", device.recorded_in({"seed": 0}), {"device.threads"})
    return device


@pytest.mark.parametrize(("first", "second"), [("AMX", None), (None, "AMX")])
def test_run_keeps_its_precision_on_another_kind_of_machine(
    first: str | None, second: str | None, instructions: Callable[[str | None], None], tmp_path: Path
) -> None:
    instructions(first)
    before = start(tmp_path / "run").precision
    instructions(second)
    resumed = start(tmp_path / "run")
    assert (resumed.precision, resumed.precision_reason) == (before, "as the run started")
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["device"]
    assert stored["precision"] == before
    again = resolve_device(DeviceConfig(**stored), tmp_path / "another")  # --config RUN/config.yaml
    assert again.precision == before


def test_another_precision_than_the_run_started_with_is_refused(tmp_path: Path) -> None:
    start(tmp_path / "run", precision="bf16")
    with pytest.raises(ValueError, match=r"device\.precision is 'bf16' there and 'fp32' here"):
        start(tmp_path / "run", precision="fp32")


def test_run_keeps_its_threads_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    assert start(tmp_path / "run").threads_reason == "all cores"
    torch.set_num_threads(1)
    resumed = start(tmp_path / "run")
    assert (resumed.config.threads, resumed.threads_reason) == (3, "as the run started")
    assert torch.get_num_threads() == 3
    assert start(tmp_path / "run", threads=2).threads_reason == "as set"
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    resumed = start(tmp_path / "run")
    assert (resumed.config.threads, resumed.threads_reason) == (1, "OMP_NUM_THREADS")
