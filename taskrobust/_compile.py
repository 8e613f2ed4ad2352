import torch
from torch import Tensor


def opaque_to_compile(values: Tensor) -> Tensor:
    """The same values.

    torch.compile may compute them again in the backward pass from buffers that the step has changed since, which gives
    wrong gradients (pytorch/pytorch#197039). The result of an operator that it cannot look into it keeps.
    """
    return _opaque_copy(values) if torch.compiler.is_compiling() else values


@torch.library.custom_op("taskrobust::opaque_copy", mutates_args=())
def _opaque_copy(values: Tensor) -> Tensor:
    return values.clone()


_opaque_copy.register_fake(torch.empty_like)
