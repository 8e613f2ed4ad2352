import torch

from taskrobust.weighting._adam import BufferAdam


def test_steps_agree_with_torch_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, generator=generator)
    parameter = torch.nn.Parameter(values.clone())
    ours, theirs = (
        BufferAdam(lr=0.03, weight_decay=0.1).setup("abcd"),
        torch.optim.Adam([parameter], lr=0.03, weight_decay=0.1),
    )
    for _ in range(50):
        gradient = torch.randn(4, generator=generator)
        parameter.grad = gradient.clone()
        theirs.step()
        ours.step(values, gradient, torch.ones(4, dtype=torch.bool))
        torch.testing.assert_close(values, parameter.detach())


def test_inactive_element_keeps_its_state() -> None:
    resting, steady = BufferAdam(lr=0.1).setup("ab"), BufferAdam(lr=0.1).setup("a")
    values, value = torch.zeros(2), torch.zeros(1)
    for step in range(10):
        gradient = torch.tensor([1.0 + step, 1.0 + step // 2])
        second_steps = step % 2 == 0
        resting.step(values, gradient, torch.tensor([True, second_steps]))
        if second_steps:
            steady.step(value, gradient[1:], torch.tensor([True]))
        assert torch.equal(values[1:], value)
