import pytest
from launch import Toy


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()
