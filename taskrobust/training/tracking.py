import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from taskrobust.loss import MultiTaskLoss
from taskrobust.training.curves import Curves
from taskrobust.training.evaluation import Evaluation
from taskrobust.training.metrics_file import MetricsFile


class Tracker:
    """Writes every task's risk and weight to metrics.jsonl and TensorBoard, and shows how the run goes.

    The values of a step stay on the device, in one row of a ring buffer, until ``log_every`` steps are together; then
    they are read at once and their means are written as one line. Rows that are in no line yet and lines that a full
    disk did not take go into checkpoints, so that a resumed run writes the same lines.

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
        self.metrics = MetricsFile(metrics)
        self.criterion = criterion
        self.log_every = log_every
        self.main = main
        self.rows = torch.zeros(log_every, 3 + 2 * len(criterion.tasks), device=device)
        self.filled = 0
        self.console = Console()
        self._curves: Curves | None = None
        self._disk_is_full = False
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
            self.metrics.start(step, self._steps)
            self._curves = Curves(self.metrics.path.parent / "tensorboard", step)
        self._task = self._progress.add_task("training", total=self._steps, completed=step, state="")
        self._progress.start()
        self._mark = (time.perf_counter(), samples)

    def finish(self) -> None:
        """End a run whose lines are all on the disk.

        Raises:
            OSError: If the disk does not take those that wait.
        """
        if self.main:
            self.metrics.write()

    def close(self) -> None:
        """End the progress bar."""
        self._progress.stop()

    def step(self, step: int, samples: int, gradient_norm: Tensor, lr: float) -> None:
        """Take in the values of one step.

        Args:
            step: Number of the step, from 1.
            samples: Samples seen so far on all ranks.
            gradient_norm: Norm of the gradient before it was clipped, NaN if it was not taken.
            lr: Learning rate of the step.
        """
        last = self.criterion.last
        scalars = torch.stack([last.total, gradient_norm, last.entropy])
        self.rows[self.filled] = torch.where(
            last.finite, torch.cat([scalars, last.risk_vector, last.weight_vector]), torch.nan
        )
        self.filled += 1
        self._progress.update(self._task, completed=step)
        if self.filled >= self.log_every or step == self._steps:
            self._write(step, samples, lr)

    def evaluation(self, step: int, evaluation: Evaluation, best: bool, split: str = "held_out") -> None:
        """Write risks and scores on held-out data, or on those of another name."""
        if not self.main:
            return
        line = {"step": step, "split": split, "best": best, **evaluation.__dict__}
        curves = {f"{split}/{task}": risk for task, risk in evaluation.risks.items()}
        if evaluation.scores:
            results = ", ".join(f"{name} {score:.4f}" for name, score in evaluation.scores.items())
            curves |= {f"{split}/{name}": score for name, score in evaluation.scores.items()}
        else:
            results = f"mean {evaluation.mean:.3f}, worst {evaluation.worst:.3f} ({evaluation.worst_task})"
            curves |= {f"{split}/mean": evaluation.mean, f"{split}/worst": evaluation.worst}
        self._record(line, curves)
        missing = [task for task in self.criterion.weighted_tasks if task not in evaluation.risks]
        self.say(
            f"step {step}: {'held-out' if split == 'held_out' else split} {results}"
            + (f", without {missing}, of which there was no element" if missing else "")
            + ((", the best so far" if split == "held_out" else ", of the best model") if best else "")
        )

    def say(self, text: str) -> None:
        """Print a line above the progress bar, once for all ranks."""
        if self.main:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        """The rows that are in no line yet, and the lines that are not on the disk."""
        return {"rows": self.rows[: self.filled].cpu(), "lines": list(self.metrics.waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take rows and lines up again."""
        if self.main:
            self.metrics.waiting = list(state["lines"])
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
        line = {
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
        curves = {"train/loss": loss, "train/effective_tasks": math.exp(entropy), "train/lr": lr}
        curves |= {f"risk/{task}": risk for task, risk in risks.items() if not math.isnan(risk)}
        self._record(line, curves | {f"weight/{task}": weight for task, weight in weights.items()})
        worst = f", worst {worst_task} {risks[worst_task]:.3f}" if worst_task is not None else ", no task present"
        state = f"loss {loss:.3f}{worst if len(weighted_tasks) > 1 else ''}, {speed:.0f} samples/s"
        self._progress.update(self._task, state=state)
        if not self.console.is_terminal:
            left = timedelta(seconds=round((self._steps - step) * (samples / step) / speed))
            self.say(f"step {step} of {self._steps}: {state}, {left} left")

    def _record(self, line: dict[str, Any], curves: dict[str, float]) -> None:
        assert self._curves is not None
        failure: OSError | None = None
        try:
            self.metrics.append(line)
        except OSError as error:
            failure = error
        try:
            self._curves.add(curves, line["step"])
        except OSError as error:
            failure = failure or error
        if failure is not None and not self._disk_is_full:
            self.say(
                f"The metrics of step {line['step']} could not be written to {self.metrics.path.parent} ({failure}). "
                "They wait in memory and in the checkpoints. Training goes on; make room, or the run ends with an "
                "error."
            )
        self._disk_is_full = failure is not None
