import json
from pathlib import Path
from typing import Any

from taskrobust._io.atomic import write_atomically
from taskrobust._io.tables import markdown_table
from taskrobust.report.runs import read_run


def reference(runs: list[str], output: Path = Path("reference.json")) -> dict[str, float]:
    """Collect the held-out risks of finished runs as a reference for excess risks.

    The reference of each task is the smallest risk that a run ends with. Use one run per task that was trained on that
    task alone, or the best runs that you have: a single run that was trained with some weights leads excess minimax
    back to these weights. Train with ``--risk.reference FixedReference --risk.reference.values reference.json``.

    Args:
        runs: The run folders. Each task is taken from one of those that evaluated it.
        output: The JSON file to write.

    Returns:
        The reference of each task.

    Raises:
        ValueError: If a folder holds no evaluated run.
    """
    risks: dict[str, float] = {}
    sources: dict[str, str] = {}
    for run in runs:
        last: dict[str, Any] = read_run(Path(run), run).held_out[-1]
        for task, risk in last["risks"].items():
            if risk is not None and risk < risks.get(task, float("inf")):
                risks[task], sources[task] = risk, run
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, json.dumps({"risks": risks, "runs": sources}, indent=1) + "\n")
    print(
        markdown_table(["task", "risk", "run"], [[task, f"{risk:.4f}", sources[task]] for task, risk in risks.items()])
    )
    print(f"Reference: {output}")
    return risks
