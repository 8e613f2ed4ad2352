from collections.abc import Callable
from typing import Any, Protocol

from taskrobust.training.sampling import Key


class Samples(Protocol):
    """Samples that are read a batch at a time, by their (index, epoch) keys."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitems__(self, keys: list[Key]) -> Any:
        """The samples with the given keys, for ``collate``."""


class ErrorsAsSamples:
    """Samples that hand an error over instead of raising it.

    An error that a worker raises comes with the worker's traceback in its message; one that is handed over comes as it
    is, and the process that trains raises it.

    Args:
        samples: The samples.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, keys: list[Key]) -> Any:
        """The samples with the given keys, or the error in place of them."""
        try:
            return self.samples.__getitems__(keys)
        except Exception as error:
            return error


class ErrorsAsBatches:
    """Makes batches, and hands on errors as ``ErrorsAsSamples`` does.

    Args:
        collate: Makes a batch.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        """A batch, or the error."""
        if isinstance(samples, Exception):
            return samples
        try:
            return self.collate(samples)
        except Exception as error:
            return error
