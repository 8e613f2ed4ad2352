"""State that starts right, stays in float32 and can be put back."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn


class FixedTensor:
    """Settings as a float32 tensor on any device, outside of the module's state.

    A checkpoint does not overwrite it, and a module that was built on the meta device still has its values.

    Args:
        values: The numbers.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.values = tuple(float(value) for value in values)
        self._on_device = {torch.device("cpu"): torch.tensor(self.values, dtype=torch.float32, device="cpu")}

    def on(self, device: torch.device) -> Tensor:
        """The numbers on ``device``, copied there on the first call only."""
        if device not in self._on_device:
            self._on_device[device] = self._on_device[torch.device("cpu")].to(device)
        return self._on_device[device]


class StatefulModule(nn.Module):
    """A module whose whole state is the result of :meth:`initial_state`."""

    def initial_state(self) -> Mapping[str, Tensor]:
        """The state before the first step, by name. Tensors become buffers, ``nn.Parameter`` become parameters."""
        return {}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Return to the initial state, in place, for instance after ``to_empty``."""
        with torch.device("cpu"):
            initial = self._initial_state()
        for name, value in initial.items():
            target = getattr(self, name)
            if hasattr(target, "device_mesh"):  # each rank has a share
                from torch.distributed.tensor import distribute_tensor

                value = distribute_tensor(value.detach().to(target.device), target.device_mesh, target.placements)
            target.copy_(value)
        for child in self.children():
            if isinstance(child, StatefulModule):
                child.reset_parameters()

    def extra_repr(self) -> str:
        """The settings, as they were given to the constructor."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names if name in self.__dict__)

    def _register_state(self) -> None:
        for name, value in self._initial_state().items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def _initial_state(self) -> Mapping[str, Tensor]:
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            return self.initial_state()
        finally:
            torch.set_default_dtype(default)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        fixed = [value for value in vars(self).values() if isinstance(value, FixedTensor)]
        for tensor in fixed:
            tensor.on(fn(torch.empty(0, device="cpu")).device)  # not in the middle of a step
        return self


class TaskModule(StatefulModule):
    """A module with one entry per task. Its constructor takes settings; ``MultiTaskLoss`` calls :meth:`setup`."""

    tasks: tuple[str, ...] | None = None
    """Names of the tasks, None before :meth:`setup`."""

    @property
    def num_tasks(self) -> int:
        """Number of tasks T."""
        if self.tasks is None:
            name = type(self).__name__
            raise ValueError(
                f"Expected a {name} that has its tasks, got a new one. Pass it to MultiTaskLoss, or call setup."
            )
        return len(self.tasks)

    def setup(self, tasks: Sequence[str]) -> Self:
        """Make the state for these tasks, and return the module.

        Args:
            tasks: Names of the tasks, in their order.

        Raises:
            ValueError: If it has tasks already, or a setting does not have one value per task.
        """
        if self.tasks is not None:
            name = type(self).__name__
            raise ValueError(
                f"Expected a new {name} for the tasks {list(tasks)}, got one that belongs to a criterion of the tasks "
                f"{list(self.tasks)}. Make one {name} per criterion."
            )
        self.tasks = tuple(tasks)
        self._register_state()
        for child in self.children():
            if isinstance(child, TaskModule):
                child.setup(tasks)
        return self

    def per_task(self, setting: str, default: float | None = None) -> FixedTensor:
        """A setting that has one value per task.

        Args:
            setting: Name of the attribute that holds the values.
            default: The value of each task where the setting is None.

        Raises:
            ValueError: If it has another number of values.
        """
        values = getattr(self, setting)
        if values is None and default is not None:
            values = [default] * self.num_tasks
        if values is None or len(values) != self.num_tasks:
            got = None if values is None else list(values)
            raise ValueError(
                f"Expected one value per task of {list(self.tasks or ())} in {type(self).__name__}({setting}=...), "
                f"got {got}."
            )
        return FixedTensor(values)


@contextmanager
def restore_buffers_unless(finite: Tensor, module: nn.Module, enabled: bool) -> Iterator[None]:
    """Undo the block's changes to the module's buffers where ``finite`` is False, without waiting for the device."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()] if enabled else []
    yield
    for buffer, old in before:
        buffer.copy_(torch.where(finite, buffer, old))


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
