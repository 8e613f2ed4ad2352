import taskrobust
from taskrobust import weighting

INTERNAL = {"Schedule", "strategies"}  # abstract, and a list of the others


def test_every_public_name_has_an_example() -> None:
    public = [getattr(module, name) for module in (taskrobust, weighting) for name in module.__all__]
    names = {item.__name__ for item in public if ">>>" not in (item.__doc__ or "")}
    assert names <= INTERNAL
