import re

import pytest
import torch

from taskrobust import Fixed


def test_weights_are_the_constants() -> None:
    weights = Fixed(3, [0.5, 0, 4]).weights(torch.tensor([5.0, 1.0, 2.0]), torch.ones(3))

    assert weights.tolist() == [0.5, 0, 4]


@pytest.mark.parametrize("values", [[1.0], [1.0, -0.5], [0.0, 0.0]])
def test_constants_that_cannot_be_weights_are_an_error(values: list[float]) -> None:
    message = f"Expected 2 weights, none negative and one positive, got {values}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Fixed(2, values)
