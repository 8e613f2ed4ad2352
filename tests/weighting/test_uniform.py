import torch

from taskrobust import Uniform


def test_present_tasks_have_equal_weights() -> None:
    risks = torch.tensor([5.0, 1.0, 2.0, 9.0])

    assert Uniform().setup("abcd").weights(risks, torch.tensor([3.0, 1.0, 2.0, 1.0])).tolist() == [
        0.25,
        0.25,
        0.25,
        0.25,
    ]
    assert Uniform().setup("abcd").weights(risks, torch.tensor([3.0, 0.0, 2.0, 0.0])).tolist() == [0.5, 0, 0.5, 0]
