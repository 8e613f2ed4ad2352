"""One fine-tuning in its own process, which kills itself after a given step.

python -m tests.helpers.glue_process SETTINGS_AS_JSON [STEP]
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskrobust.commands.finetune_glue import finetune_glue
from taskrobust.training.config import LoopConfig
from taskrobust.training.device import DeviceConfig
from taskrobust.training.optim import OptimConfig
from taskrobust.training.trainer import Trainer


def finetune(model: str, glue: str, output: str, **settings: Any) -> Any:
    """Fine-tune for a few steps."""
    few = {"steps": 12, "batch_size": 8, "eval_every": 5, "checkpoint_every": 4, "log_every": 2}
    loop = LoopConfig(**few | settings.pop("loop", {}))
    may_differ = {"model": model, "glue": glue, "loop": asdict(loop), "train_samples": settings.get("train_samples")}
    return finetune_glue(
        model,
        glue,
        Path(output),
        tasks=settings.pop("tasks", ["cola"]),
        seeds=settings.pop("seeds", [0]),
        loop=loop,
        optim=OptimConfig(lr=1e-3, weight_decay=0.1, warmup_steps=0.06),
        device=DeviceConfig(device="cpu", precision="fp32"),
        resolved=may_differ,
        **settings,
    )


def main(settings: str, dies_after: str = "never") -> None:
    step = Trainer._step

    def dies(self: Trainer, batches: Iterator[Any]) -> None:
        step(self, batches)
        if str(self.progress.step) == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    Trainer._step = dies  # type: ignore[method-assign]
    finetune(**json.loads(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
