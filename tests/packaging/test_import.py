import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import taskrobust

ROOT = Path(taskrobust.__file__).parents[1]


def run(code: str | Path, *, succeeds: bool = True) -> str:
    """What a fresh interpreter prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(code)] if isinstance(code, Path) else [sys.executable, "-c", code]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (process.returncode == 0) == succeeds, process.stderr
    return process.stdout if succeeds else process.stderr


def test_the_core_loads_torch_and_nothing_heavier() -> None:
    code = """
import json, sys
import torch
with_torch = {name.partition(".")[0] for name in sys.modules}
import taskrobust
for name in taskrobust.__all__:
    getattr(taskrobust, name)
print(json.dumps([sorted(with_torch), sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    with_torch, loaded = map(set, json.loads(run(code)))

    assert "torchvision" not in with_torch
    assert loaded - with_torch <= {"taskrobust"} | sys.stdlib_module_names


def test_the_vision_model_is_loaded_when_it_is_asked_for() -> None:
    code = """
import sys
import taskrobust.vision
assert "torchvision" not in sys.modules
from taskrobust.vision import MultiModalMae, modalities
assert MultiModalMae.__module__ == "taskrobust.vision.mae.model"
assert not hasattr(taskrobust.vision, "MultiModalMAE")
"""
    run(code)


FIRST = {
    "timm": "import timm",
    "torchvision": "import torchvision.transforms.v2",
    "a model of transformers": "from transformers import BertForPreTraining, DPTForDepthEstimation",
}
"""What a program may import before taskrobust."""


def test_libraries_on_torchvision_can_be_imported_after_taskrobust() -> None:
    run("\n".join(["import taskrobust", *FIRST.values()]))


@pytest.mark.parametrize("name", FIRST)
def test_libraries_on_torchvision_that_failed_before_taskrobust_load_after_it(name: str) -> None:
    code = f"""
try:
    {FIRST[name]}
except (RuntimeError, ImportError):
    pass  # where the builds differ: operator torchvision::nms does not exist
import taskrobust.vision.transforms.crops
{FIRST[name]}
"""
    run(code)


def test_looking_for_torchvision_before_importing_it_changes_nothing() -> None:
    code = """
from transformers import BertConfig
import taskrobust
from importlib.util import find_spec
assert find_spec("torchvision") == find_spec("torchvision")
from transformers import BertForPreTraining
import torchvision
"""
    run(code)


def test_matching_builds_are_left_alone(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import taskrobust, torchvision, torch
assert torchvision.__file__.startswith({str(tmp_path)!r})
assert not hasattr(torch.ops.torchvision, "nms")
"""
    fake_torchvision(tmp_path, "")
    run(code)


def test_builds_that_cannot_be_joined_are_named_with_what_to_reinstall(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import torch
torch.__version__ = "2.13.0+cu126"
from taskrobust.vision.transforms.crops import CenterCrop
CenterCrop(8)(dict(rgb=torch.zeros(3, 9, 9)), (0, 0))
"""
    error = run(code, succeeds=False)
    assert error.endswith(
        "\nImportError: torchvision 0.28.0 does not load under torch 2.13.0+cu126: operator torchvision::nms does not "
        "exist\nInstall builds that match: pip install --force-reinstall torch torchvision --index-url "
        "https://download.pytorch.org/whl/cu126\n"
    )


def fake_torchvision(folder: Path, code: str) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision/__init__.py").write_text(code)
    (folder / "torchvision/version.py").write_text("__version__ = '0.28.0'\n")


def test_workers_that_start_anew_can_use_torchvision(tmp_path: Path) -> None:
    script = tmp_path / "loading.py"
    script.write_text("""
import taskrobust
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.transforms import PILToTensor

if __name__ == "__main__":
    data = FakeData(2, (3, 8, 8), transform=PILToTensor())
    loader = DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    print(*[images.shape for images, _ in loader])
""")
    assert run(script) == "torch.Size([2, 3, 8, 8])\n"


def test_the_workers_of_taskrobust_need_no_main_module_to_use_torchvision() -> None:
    code = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from taskrobust.vision.transforms.crops import CenterCrop
import torch
from torchvision.tv_tensors import Image
with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    cropped = pool.submit(CenterCrop(4), {"rgb": Image(torch.zeros(3, 8, 8))}, (0, 0)).result()
print(cropped["rgb"].shape)
"""
    assert run(code) == "torch.Size([3, 4, 4])\n"
