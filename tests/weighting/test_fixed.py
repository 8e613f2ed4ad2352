import math
import re

import pytest
import torch

from taskrobust import Fixed, MultiTaskLoss


def test_weights_are_the_constants() -> None:
    weights = Fixed([0.5, 0, 4]).setup("abc").weights(torch.tensor([5.0, 1.0, 2.0]), torch.ones(3))

    assert weights.tolist() == [0.5, 0, 4]


@pytest.mark.parametrize("values", [[1.0, -0.5], [0.0, 0.0], [1.0, math.nan], [math.inf, 1.0]])
def test_invalid_constants_raise(values: list[float]) -> None:
    message = f"Expected finite weights, none negative and one positive, got {values}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Fixed(values)


def test_wrong_number_of_constants_raises_and_names_the_tasks() -> None:
    message = "Expected one value per task of ['rgb', 'depth', 'semseg'] in Fixed(values=...), got [0.5, 0.3]."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MultiTaskLoss(["rgb", "depth", "semseg"], Fixed((0.5, 0.3)))


def test_checkpoint_does_not_overwrite_the_constants() -> None:
    criterion = MultiTaskLoss(["rgb", "depth"], Fixed([1.0, 3.0]))
    criterion.load_state_dict(MultiTaskLoss(["rgb", "depth"], Fixed([1.0, 1.0])).state_dict())

    criterion(torch.tensor([1.0, 1.0]))

    assert criterion.last.weight_vector.tolist() == [0.25, 0.75]
