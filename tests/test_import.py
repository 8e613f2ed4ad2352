import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import taskrobust

ROOT = Path(taskrobust.__file__).parents[1]
HEAVY = {
    "accelerate",
    "datasets",
    "jsonargparse",
    "matplotlib",
    "nltk",
    "rich",
    "scipy",
    "timm",
    "torchvision",
    "transformers",
}
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


# As in a checkout that is not installed, where no .pth file has run.
NOT_INSTALLED = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "TorchvisionFinder"]
sys.modules.pop("_taskrobust_torchvision", None)
"""


def run(code: str, path: Path | None = ROOT) -> str:
    """What a fresh interpreter prints."""
    environment = os.environ | {"PYTHONPATH": str(path or "")}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_taskrobust_loads_torch_and_nothing_heavier() -> None:
    code = """
import json, sys
import torch
with_torch = {name.partition(".")[0] for name in sys.modules}
import taskrobust
print(json.dumps([sorted(with_torch), sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    with_torch, loaded = map(set, json.loads(run(code)))

    assert not HEAVY & loaded
    assert "taskrobust" in loaded - with_torch
    assert loaded - with_torch <= {"taskrobust"} | sys.stdlib_module_names


def test_the_vision_model_is_loaded_when_it_is_asked_for() -> None:
    code = """
import sys
import taskrobust.vision
assert "torchvision" not in sys.modules
from taskrobust.vision import MultiModalMae, decoder
assert MultiModalMae.__module__ == "taskrobust.vision.model"
assert not hasattr(taskrobust.vision, "MultiModalMAE")
"""
    run(code)


@needs_timm
def test_torchvision_and_timm_can_be_imported_after_taskrobust() -> None:
    code = """
import taskrobust
waiting = lambda: sum(type(finder).__name__ == "TorchvisionFinder" for finder in sys.meta_path)
taskrobust._torchvision.install()
assert waiting() == 1
import timm, torchvision.transforms.v2
assert waiting() == 0
taskrobust._torchvision.install()
assert waiting() == 0
"""
    run(NOT_INSTALLED + code)


@needs_timm
def test_timm_can_be_imported_after_the_startup_file_alone(tmp_path: Path) -> None:
    # What the wheel installs: the module under the name that its .pth file imports.
    source = (ROOT / "taskrobust" / "_torchvision.py").read_text()
    (tmp_path / "_taskrobust_torchvision.py").write_text(source)
    code = f"""
import _taskrobust_torchvision
assert _taskrobust_torchvision.__file__.startswith({str(tmp_path)!r})
assert "torch" not in sys.modules
import timm
assert "taskrobust" not in sys.modules
"""
    run(NOT_INSTALLED + code, tmp_path)


@needs_timm
@pytest.mark.skipif(
    importlib.util.find_spec("_taskrobust_torchvision") is None,
    reason="the package is not installed, so that no .pth file runs at startup",
)
def test_timm_can_be_imported_by_a_program_that_does_not_know_taskrobust() -> None:
    run("import timm, sys; assert 'taskrobust' not in sys.modules", path=None)


def test_transformers_before_taskrobust_works() -> None:
    """transformers looks for torchvision without importing it, which must not declare its operators twice."""
    lines = "from transformers import BertConfig; import taskrobust; from transformers import BertForPreTraining"
    result = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
