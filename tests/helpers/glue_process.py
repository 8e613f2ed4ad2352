"""One fine-tuning in its own process, which kills itself after a given step.

python -m tests.helpers.glue_process SETTINGS_AS_JSON [STEP]
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskrobust.commands.finetune_glue import finetune_glue
from taskrobust.training.callbacks import Callback
from taskrobust.training.config import DeviceConfig, LoopConfig, OptimConfig, RunConfig
from taskrobust.training.trainer import Trainer


class Dies(Callback):
    """Kills the process after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.progress.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def finetune(model: str, glue: str, output: str, callbacks: Sequence[Callback] = (), **settings: Any) -> Any:
    """Fine-tune for a few steps, in as little as the test needs."""
    few = {"steps": 12, "batch_size": 8, "eval_every": 5, "checkpoint_every": 4, "log_every": 2}
    run = RunConfig(
        loop=LoopConfig(**few | settings.pop("loop", {})),
        optim=OptimConfig(lr=1e-3, weight_decay=0.1, warmup_steps=0.06),
        device=DeviceConfig(device="cpu", precision="fp32"),
        resume=settings.pop("resume", "auto"),
        callbacks=list(callbacks),
    )
    settings = {"tasks": ["cola"], "seeds": [0]} | settings
    return finetune_glue(model, glue, Path(output), run=run, **settings)


def main(settings: str, dies_after: str = "never") -> None:
    callbacks = [] if dies_after == "never" else [Dies(int(dies_after))]
    finetune(callbacks=callbacks, **json.loads(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
