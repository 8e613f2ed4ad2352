"""Forward and backward through one decoder at a time, so that only one holds its activations."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

DecoderLoss = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps the encoder's tokens to the loss of one decoder, shape [], and the number of samples behind it."""


def loss_with_gradient(loss: DecoderLoss, tokens: Tensor, parameters: Iterable[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """The result of ``loss(tokens)``, with its gradient computed at once.

    Only the gradient with respect to the tokens and the decoder's parameters is kept, not the activations. Backward
    multiplies it by the gradient that arrives, so that a weight may be decided after all decoders have run.

    Args:
        loss: Runs the decoder.
        tokens: Outputs of the encoder.
        parameters: Those of the decoder.

    Raises:
        ValueError: Under autocast to float16, where a gradient that is not scaled up beforehand underflows.
    """
    device = tokens.device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
        raise ValueError("Expected float32 or bfloat16 with memory_efficient=True, got autocast to float16.")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    results: tuple[Tensor, Tensor] = _LossWithGradient.apply(loss, tokens, *trained)  # type: ignore[no-untyped-call]
    return results


class _LossWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: DecoderLoss, tokens: Tensor, *parameters: nn.Parameter) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            tokens = tokens.detach().requires_grad_()
            total, number = loss(tokens)
            ctx.save_for_backward(*torch.autograd.grad(total, (tokens, *parameters)))
        ctx.mark_non_differentiable(number)
        return total.detach(), number

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(kept * gradient for kept in ctx.saved_tensors)
