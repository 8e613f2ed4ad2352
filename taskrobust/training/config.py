from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class LoopConfig:
    """How long a run trains, on how much at a time, and how it is watched.

    Args:
        steps: Steps of the optimizer. None takes 1000, or as many as ``epochs`` are.
        epochs: Passes over the training samples, in place of ``steps``.
        batch_size: Samples in a forward pass of one process.
        accumulation: Forward passes in a step.
        window_weights: Where the weights of an accumulation window come from. ``running``: from the running risks of
            the steps before. ``two_pass``: from the risks of the window itself, by a first pass without gradient, a
            third more work.
        seed: Seed of parameters, order of the data and dropout.
        log_every: Steps that make a line of metrics.jsonl.
        eval_every: Steps between evaluations on held-out data. There is one at the end, too. None evaluates after each
            epoch.
        checkpoint_every: Steps between checkpoints. There is one at the end, too.
        workers: Processes that load data. 0 loads in the training process.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    accumulation: int = 1
    window_weights: Literal["running", "two_pass"] = "running"
    seed: int = 0
    log_every: int = 10
    eval_every: int | None = 500
    checkpoint_every: int = 500
    workers: int = 0
