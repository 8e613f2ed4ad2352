import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import taskrobust
from taskrobust.extras import EXTRAS, MissingExtraError, require

PACKAGE = Path(taskrobust.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
CORE = {"torch", "numpy"}
EXTRA_OF = {
    "nlp": "nlp",
    "vision": "vision",
    "training": "train",
    "report": "report",
    "reproduce": "report",
    "studies": "studies",
    "synthetic": "train",
    "cli": "train",
    "commands": "train",
}
"""The extra that a subpackage may import from. The others are the core."""

EXTRA_OF_FILE = {"compare_predictions": "vision", "pretrain_bert": "nlp", "parquet": "studies"} | dict.fromkeys(
    ("pretrain_mae", "finetune_vision", "predict", "pseudo_label", "shards", "step_cost"), "vision"
)


def extra_of(file: Path) -> str | None:
    """The extra that a file may import from, None for the core alone."""
    return EXTRA_OF_FILE.get(file.stem, EXTRA_OF.get(file.relative_to(PACKAGE).parts[0]))


def imported(file: Path) -> Iterator[str]:
    """Top-level names of what a file imports, at its top or in a function, but for the standard library."""
    for node in ast.walk(ast.parse(file.read_text())):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            modules = [node.module]
        for module in modules:
            name = module.partition(".")[0]
            if name not in sys.stdlib_module_names and name != "taskrobust":
                yield name


def declared(requirements: list[str]) -> set[str]:
    """Names of the distributions that requirements name, with those of the extras that they include."""
    names: set[str] = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == "taskrobust":
            for extra in requirement.extras:
                names |= declared(PROJECT["optional-dependencies"][extra])
        else:
            names.add(canonicalize_name(requirement.name))
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_imports_what_the_core_or_its_extra_brings(file: Path) -> None:
    extra = extra_of(file)
    assert set(imported(file)) <= CORE | set(EXTRAS[extra] if extra is not None else ())


def test_the_core_declares_torch_and_numpy_alone() -> None:
    assert declared(PROJECT["dependencies"]) == CORE


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_declares_the_modules_that_it_is_checked_for_and_no_others(extra: str) -> None:
    distributions = packages_distributions()
    modules = {canonicalize_name(distributions[module][0]) for module in EXTRAS[extra]}
    assert declared([f"taskrobust[{extra}]"]) == modules


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_nothing_that_no_file_imports(extra: str) -> None:
    users = [file for file in FILES if extra_of(file) == extra]
    train = set(EXTRAS["train"]) if extra != "train" else {"tensorboard"}  # which accelerate imports
    assert set(EXTRAS[extra]) - train <= {name for file in users for name in imported(file)}


def test_all_is_every_extra() -> None:
    assert declared(["taskrobust[all]"]) == set.union(*(declared([f"taskrobust[{extra}]"]) for extra in EXTRAS))


def test_a_missing_module_is_answered_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "nlp", ("yaml", "absent_module"))
    with pytest.raises(MissingExtraError) as error:
        require("nlp", "taskrobust.nlp")
    assert str(error.value) == (
        "taskrobust.nlp needs absent_module, which is not installed: pip install 'taskrobust[nlp]'."
    )
    assert error.value.name == "absent_module"
