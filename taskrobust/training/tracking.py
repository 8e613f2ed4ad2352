import json
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from taskrobust.loss import MultiTaskLoss
from taskrobust.training.evaluation import Evaluation


class Tracker:
    """Writes every task's risk and weight to metrics.jsonl and TensorBoard, and shows how the run goes.

    The values of a step stay on the device, in one row of a ring buffer, until ``log_every`` steps are together; then
    they are read at once and their means are written as one line. Rows that are not written yet go into checkpoints, so
    that a resumed run writes the same lines.

    Args:
        metrics: The JSON lines file. TensorBoard's files lie beside it in ``tensorboard/``.
        criterion: Holds the values of the last step.
        steps: Steps of the run.
        log_every: Steps that make a line.
        device: Where the values are.
        main: Whether this rank writes and shows.
    """

    def __init__(
        self, metrics: Path, criterion: MultiTaskLoss, steps: int, log_every: int, device: torch.device, main: bool
    ) -> None:
        self.metrics = metrics
        self.criterion = criterion
        self.log_every = log_every
        self.main = main
        self.rows = torch.zeros(log_every, 3 + 2 * len(criterion.tasks), device=device)
        self.filled = 0
        self.console = Console()
        self._board: SummaryWriter | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (main and self.console.is_terminal),
        )
        self._task = TaskID(0)
        self._steps = steps
        self._mark = (time.perf_counter(), 0)

    def start(self, step: int, samples: int) -> None:
        """Go on from a step: lines that this process writes again are dropped."""
        if self.main:
            self._drop_lines_from(step)
            self._board = SummaryWriter(str(self.metrics.parent / "tensorboard"), purge_step=step + 1)
        self._task = self._progress.add_task("pre-training", total=self._steps, completed=step, state="")
        self._progress.start()
        self._mark = (time.perf_counter(), samples)

    def close(self) -> None:
        """End the progress bar and flush the files."""
        self._progress.stop()
        if self._board is not None:
            self._board.close()

    def flush(self) -> None:
        """Have the lines up to here on disk before a checkpoint says that they are written."""
        if self._board is not None:
            self._board.flush()

    def step(self, step: int, samples: int, total: Tensor, gradient_norm: Tensor, lr: float) -> None:
        """Take in the values of one step.

        Args:
            step: Number of the step, from 1.
            samples: Samples seen so far on all ranks.
            total: Weighted total.
            gradient_norm: Norm of the gradient before it was clipped, NaN if it was not taken.
            lr: Learning rate of the step.
        """
        criterion = self.criterion
        scalars = torch.stack([total, gradient_norm, criterion.entropy])
        values = (scalars, criterion.risk_vector, criterion.weight_vector)
        self.rows[self.filled] = torch.where(criterion.finite, torch.cat(values), torch.nan)
        self.filled += 1
        self._progress.update(self._task, completed=step)
        if self.filled >= self.log_every or step == self._steps:
            self._write(step, samples, lr)

    def evaluation(self, step: int, evaluation: Evaluation, best: bool) -> None:
        """Write the risks on held-out data."""
        if not self.main:
            return
        self._append({"step": step, "split": "heldout", "best": best, **evaluation.__dict__})
        assert self._board is not None
        for task, risk in evaluation.risks.items():
            self._board.add_scalar(f"heldout/{task}", risk, step)
        self._board.add_scalar("heldout/mean", evaluation.mean, step)
        self._board.add_scalar("heldout/worst", evaluation.worst, step)
        missing = [task for task in self.criterion.weighted_tasks if task not in evaluation.risks]
        self.say(
            f"step {step}: held-out mean {evaluation.mean:.3f}, worst {evaluation.worst:.3f} ({evaluation.worst_task})"
            + (f", without {missing}, of which there was no element" if missing else "")
            + (", the best so far" if best else "")
        )

    def say(self, text: str) -> None:
        """Print a line above the progress bar, once for all ranks."""
        if self.main:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        """The rows that are not written yet."""
        return {"rows": self.rows[: self.filled].cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take rows up again."""
        self.filled = len(state["rows"])  # more than log_every, if that is smaller than it was
        self.rows = torch.cat([state["rows"].to(self.rows.device), self.rows])

    def _write(self, step: int, samples: int, lr: float) -> None:
        self.criterion.check_finite()
        means = self.rows[: self.filled].nanmean(0).tolist()
        self.filled = 0
        if not self.main:
            return
        now, before = time.perf_counter(), self._mark
        self._mark = (now, samples)
        tasks = self.criterion.tasks
        loss, gradient_norm, entropy, *vectors = means
        risks = dict(zip(tasks, vectors[: len(tasks)], strict=True))
        weighted_tasks = self.criterion.weighted_tasks  # the others have the weights of the configuration
        weights = dict(zip(weighted_tasks, vectors[len(tasks) :], strict=False))
        units = dict(zip(weighted_tasks, self.criterion.risk.comparable_unit().tolist(), strict=True))
        present = [task for task in weighted_tasks if not math.isnan(risks[task])]
        worst_task = max(present, key=lambda task: risks[task] / units[task], default=None)
        speed = (samples - before[1]) / (now - before[0])
        self._append(
            {
                "step": step,
                "split": "train",
                "samples": samples,
                "loss": loss,
                "gradient_norm": gradient_norm,
                "lr": lr,
                "risks": risks,
                "weights": weights,
                "worst_task": worst_task,
                "entropy": entropy,
                "effective_tasks": math.exp(entropy),
                "skipped": int(self.criterion.skipped),
                "samples_per_second": speed,
            }
        )
        assert self._board is not None
        self._board.add_scalar("train/loss", loss, step)
        self._board.add_scalar("train/effective_tasks", math.exp(entropy), step)
        self._board.add_scalar("train/lr", lr, step)
        for task in tasks:
            if not math.isnan(risks[task]):
                self._board.add_scalar(f"risk/{task}", risks[task], step)
        for task, weight in weights.items():
            self._board.add_scalar(f"weight/{task}", weight, step)
        worst = f"worst {worst_task} {risks[worst_task]:.3f}" if worst_task is not None else "no task present"
        state = f"loss {loss:.3f}, {worst}, {speed:.0f} samples/s"
        self._progress.update(self._task, state=state)
        if not self.console.is_terminal:
            left = timedelta(seconds=round((self._steps - step) * (samples / step) / speed))
            self.say(f"step {step} of {self._steps}: {state}, {left} left")

    def _append(self, line: dict[str, Any]) -> None:
        with self.metrics.open("a") as file:
            file.write(json.dumps(_without_nan(line)) + "\n")

    def _drop_lines_from(self, step: int) -> None:
        if not self.metrics.exists():
            return
        kept = []
        for text in self.metrics.read_text().splitlines(keepends=True):
            line = json.loads(text) if text.endswith("\n") else None
            is_last_evaluation = line is not None and line["step"] == self._steps and line["split"] == "heldout"
            if line is None or line["step"] > step or is_last_evaluation:
                break
            kept.append(text)
        unfinished = self.metrics.with_name(".metrics.jsonl")
        unfinished.write_text("".join(kept))
        unfinished.replace(self.metrics)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a task that was absent from all steps of a line has the risk null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
