"""The held-out risks of pre-training, by label, task and run."""

import math
from collections.abc import Sequence

from taskrobust.report.compared import Compared, compared
from taskrobust.report.comparison import RISK, Run, Statistic
from taskrobust.report.sources import Source


def compare_risks(sources: Sequence[Source], baseline: str, statistic: Statistic) -> Compared | None:
    """Compare the risks of the last held-out evaluations of pre-training; None where there are none.

    Mean and worst are over the tasks that the runs weigh, in the unit of the losses, whatever unit a run weighs in.

    Args:
        sources: All labels.
        baseline: The label that gains are over.
        statistic: Center of the runs of a task.
    """
    found = [source for source in sources if source.pretraining]
    if not found:
        return None
    values: dict[str, dict[str, dict[Run, float]]] = {source.label: {} for source in found}
    counted: dict[str, bool] = {}
    steps = set()
    for source in found:
        for folder, run in source.pretraining.items():
            last = run.held_out[-1]
            steps.add(last["step"])
            for task, risk in last["risks"].items():
                values[source.label].setdefault(task, {})[folder] = math.inf if risk is None else risk
                counted[task] = counted.get(task, True) and task in (run.weighted_tasks or [task])
    warnings = [f"{source.label} has no pre-training run." for source in sources if not source.pretraining]
    if len(steps) > 1:
        warnings.append(f"The last evaluations are of different steps, from {min(steps)} to {max(steps)}.")
    names = {task: task for task in counted}
    fixed = [task for task, weighted in counted.items() if not weighted]
    notes = [f"Of the last evaluation on held-out data, at step {max(steps)}, in the unit of the losses."]
    if fixed:
        notes.append(f"Mean and worst are without {', '.join(fixed)}, of fixed weight.")
    weighted_tasks = [task for task, weighted in counted.items() if weighted]
    return compared(values, weighted_tasks, baseline, RISK, statistic, names, notes, warnings)
