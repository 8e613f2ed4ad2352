import inspect
from importlib import import_module

import pytest

import taskrobust

INTERNAL = {"Schedule", "strategies"}  # abstract, and a list of the others


@pytest.mark.parametrize("module", ["taskrobust", "taskrobust.weighting"])
def test_every_public_name_has_an_example(module: str) -> None:
    package = import_module(module)
    public = [getattr(package, name) for name in package.__all__]
    assert {item.__name__ for item in public if ">>>" not in (item.__doc__ or "")} <= INTERNAL


@pytest.mark.parametrize("module", ["taskrobust.studies.theory", "taskrobust.studies.pretext", "taskrobust.vision"])
def test_every_exported_class_has_an_example(module: str) -> None:
    package = import_module(module)
    classes = [item for item in (getattr(package, name) for name in package.__all__) if inspect.isclass(item)]
    assert not {item.__name__ for item in classes if ">>>" not in (item.__doc__ or "")}


def test_every_public_name_is_listed() -> None:
    assert set(taskrobust.__all__) <= set(dir(taskrobust))
