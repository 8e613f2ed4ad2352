import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import taskrobust
from taskrobust.extras import EXTRAS

ROOT = Path(__file__).parents[2]
PACKAGES_AT_HAND = Path(sysconfig.get_path("purelib"))
SUBPACKAGES = {
    "train": ["training"],
    "nlp": ["nlp"],
    "vision": ["vision"],
    "report": ["report"],
    "studies": ["studies.theory", "studies.pretext"],
}


def run(*command: object, folder: Path, exit_code: int = 0) -> str:
    """Run a command in a folder outside the checkout and return what it prints, standard error included."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == exit_code, process.stdout
    return process.stdout


def build(target: str, project: Path, folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, folder=project)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel alone into a new environment, and return the folder of its packages."""
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    return next(folder.glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the wheel and the packages at hand."""
    folder = tmp_path_factory.mktemp("environment")
    (install(wheel, folder) / "at_hand.pth").write_text(f"{PACKAGES_AT_HAND}\n")
    return folder / "bin"


def install_with(extra: str, wheel: Path, folder: Path) -> Path:
    """Programs of an environment with the wheel and what an extra brings, or the bare core for an empty name."""
    packages = install(wheel, folder)
    for needed in requirements(PathDistribution(next(packages.glob("*.dist-info"))), {extra}):
        for name in {file.parts[0] for file in distribution(needed).files or ()} - {"..", "__pycache__"}:
            (packages / name).symlink_to(PACKAGES_AT_HAND / name)
    return folder / "bin"


def requirements(of: Distribution, extras: set[str]) -> set[str]:
    """Names of all distributions that one brings."""
    names: set[str] = set()
    for requirement in map(Requirement, of.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            is_own_extra = requirement.name == of.name
            names |= set() if is_own_extra else {canonicalize_name(requirement.name)}
            names |= requirements(of if is_own_extra else distribution(requirement.name), requirement.extras)
    return names


def test_the_wheel_has_the_types_and_configurations_and_nothing_outside_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"taskrobust/py.typed", "taskrobust/_torchvision.py", "taskrobust/configs/nlp/demo.yaml"} <= set(names)
    assert {Path(name).parts[0].removesuffix(".dist-info") for name in names} == {
        "taskrobust",
        f"taskrobust-{taskrobust.__version__}",
    }


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    rebuilt = build("wheel", tmp_path / source.name.removesuffix(".tar.gz"), tmp_path / "wheel")
    first, second = (
        {file.filename: file.CRC for file in zipfile.ZipFile(path).infolist()} for path in (wheel, rebuilt)
    )
    assert first == second


def test_the_commands_run_from_another_folder(binaries: Path, tmp_path: Path) -> None:
    assert run(binaries / "taskrobust", "--version", folder=tmp_path).startswith("taskrobust ")
    run(binaries / "taskrobust", "theory", "appendix-c", "--output", tmp_path / "appendix", folder=tmp_path)
    assert any((tmp_path / "appendix").iterdir())


def test_pretraining_takes_a_configuration_of_the_package(binaries: Path, tmp_path: Path) -> None:
    run(
        *(binaries / "taskrobust", "pretrain-bert", "--config", "configs/nlp/demo.yaml", "--output", "run"),
        *("--corpus.documents", 80, "--corpus.held_out_documents", 40, "--corpus.vocab_size", 300),
        *("--bert.hidden", 32, "--loop.batch_size", 8, "--loop.steps", 4, "--loop.log_every", 2),
        folder=tmp_path,
    )
    assert (tmp_path / "run/model").is_dir()


def test_an_own_loop_trains(binaries: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text("""
import torch
from torch import nn
from taskrobust import MultiTaskLoss, SoftmaxMinimax

torch.manual_seed(0)
model = nn.Linear(3, 2)
criterion = MultiTaskLoss(["first", "second"], SoftmaxMinimax())
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(64, 3), torch.randn(64, 2)
worst = []
for _ in range(10):
    losses = (model(x) - y).square().mean(0)
    optimizer.zero_grad()
    criterion({"first": losses[0], "second": losses[1]}).backward()
    optimizer.step()
    worst.append(losses.max().item())
assert worst[-1] < worst[0]
print("trained")
""")
    assert run(binaries / "python", "loop.py", folder=tmp_path) == "trained\n"


def test_a_type_checker_sees_the_types_of_the_package(binaries: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text("""
from taskrobust import MultiTaskLoss, SoftmaxMinimax

reveal_type(MultiTaskLoss(["rgb", "depth"], SoftmaxMinimax(alpha="three")))
""")
    (tmp_path / "mypy.ini").write_text("[mypy-torch.*,numpy.*]\nfollow_imports = skip\n")
    mypy = [sys.executable, "-m", "mypy", "--python-executable", binaries / "python", "--cache-dir", tmp_path / "cache"]
    output = run(*mypy, "user.py", folder=tmp_path, exit_code=1)
    assert 'Argument "alpha" to "SoftmaxMinimax" has incompatible type "str"' in output
    assert 'Revealed type is "taskrobust.loss.MultiTaskLoss"' in output
    assert output.endswith("Found 1 error in 1 file (checked 1 source file)\n")


@pytest.mark.slow
def test_the_bare_core_runs_its_examples_and_names_the_extra_of_the_rest(wheel: Path, tmp_path: Path) -> None:
    binaries = install_with("", wheel, tmp_path / "environment")
    for example in ("own_loop", "own_strategy", "accumulation"):
        assert run(binaries / "python", "-W", "error", ROOT / f"examples/{example}.py", folder=tmp_path)
    for extra, subpackages in SUBPACKAGES.items():
        for name in subpackages:
            sentence = f"taskrobust.{name} needs {EXTRAS[extra][0]}, which is not installed: pip install "
            output = run(binaries / "python", "-c", f"import taskrobust.{name}.any", folder=tmp_path, exit_code=1)
            assert output.endswith(f"{sentence}'taskrobust[{extra}]'.\n")
    assert run(binaries / "taskrobust", "--version", folder=tmp_path).startswith("taskrobust ")
    output = run(binaries / "taskrobust", "demo", folder=tmp_path, exit_code=1)
    assert output == (
        "error: taskrobust demo needs jsonargparse, which is not installed: pip install 'taskrobust[train]'.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("extra", SUBPACKAGES)
def test_an_extra_brings_all_that_its_modules_import(extra: str, wheel: Path, tmp_path: Path) -> None:
    binaries = install_with(extra, wheel, tmp_path / "environment")
    code = f"""
import importlib, pkgutil
for name in {SUBPACKAGES[extra]}:
    package = importlib.import_module(f"taskrobust.{{name}}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import taskrobust.cli.options
"""
    run(binaries / "python", "-W", "error", "-c", code, folder=tmp_path)


@pytest.mark.slow
def test_a_command_without_its_extra_ends_with_its_name(wheel: Path, tmp_path: Path) -> None:
    binaries = install_with("train", wheel, tmp_path / "environment")
    assert run(binaries / "taskrobust", "pretrain-bert", folder=tmp_path, exit_code=1) == (
        "error: taskrobust.nlp needs transformers, which is not installed: pip install 'taskrobust[nlp]'.\n"
    )
