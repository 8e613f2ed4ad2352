import re
from typing import Any

import numpy as np
import pytest
import torch

from taskrobust.weighting import Constant, Linear, Schedule, Theorem31

STEPS = torch.tensor([0, 1, 5, 9, 10, 1000])


def values(schedule: Schedule) -> np.ndarray:
    return torch.stack([schedule(step) for step in STEPS]).numpy()


def test_constant_is_the_same_at_every_step() -> None:
    assert values(Constant(2.5)).tolist() == [2.5] * 6
    assert values(Constant(2.5)).dtype == np.float32


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0.0, 10.0, [0, 1, 5, 9, 10, 10]), (2.0, 1.0, [2.0, 1.9, 1.5, 1.1, 1.0, 1.0])],
)
def test_linear_is_constant_after_its_steps(start: float, end: float, expected: list[float]) -> None:
    np.testing.assert_allclose(values(Linear(start, end, steps=10)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("tasks", "radius", "lipschitz", "bound"), [(10, 1.0, 1.0, 1.0), (3, 4.0, 0.5, 2.0), (2, 100.0, 5.0, 20.0)]
)
def test_theorem_31_agrees_with_its_formula(tasks: int, radius: float, lipschitz: float, bound: float) -> None:
    root = np.sqrt(STEPS.numpy() + 1) / (radius * lipschitz)

    np.testing.assert_allclose(
        values(Theorem31(tasks, radius, lipschitz, bound)),
        np.maximum(4 * root * np.log(4 * tasks * bound * root), 0),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (Linear, (0.0, 1.0, 0), "Expected a positive number of steps, got 0."),
        (
            Theorem31,
            (3, 1.0, 0.0, 2.0),
            "Expected positive constants, got num_tasks=3, radius=1.0, lipschitz=0.0, bound=2.0.",
        ),
    ],
)
def test_invalid_arguments_raise(schedule: Any, arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        schedule(*arguments)
