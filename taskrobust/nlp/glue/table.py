"""The table of all fine-tunings of a pre-trained model: medians over seeds, averages and the worst task."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from taskrobust._io.atomic import write_atomically
from taskrobust._io.tables import markdown_table
from taskrobust.nlp.glue.tasks import GLUE
from taskrobust.training.results import RESULTS, Result, read_results


def run_path(output: Path, task: str, seed: int) -> Path:
    """The run folder for a task and a seed."""
    return output / task / f"seed{seed}"


@dataclass(frozen=True)
class Row:
    """The dev results of a task.

    Args:
        task: Name of the task.
        results: Results of the last models, in the order of the seeds.
    """

    task: str
    results: tuple[Result, ...]

    @property
    def values(self) -> list[float]:
        """The headline metric of each seed."""
        return [result.value for result in self.results]

    @property
    def median(self) -> float:
        """The median over the seeds."""
        return median(self.values)

    @property
    def median_seed(self) -> int:
        """The seed with the median value, or with the lower of the two middle values."""
        return sorted(self.results, key=lambda result: result.value)[(len(self.results) - 1) // 2].seed


class GlueTable:
    """All results in a folder of fine-tunings.

    Args:
        output: The folder, with one run per task and seed.
    """

    def __init__(self, output: Path) -> None:
        found = [result for path in sorted(output.glob(f"*/*/{RESULTS}")) for result in read_results(path.parent)]
        self.pretrained = sorted({result.pretrained for result in found})
        """Names of the models that were fine-tuned."""
        self._names = [name for task in GLUE.values() for name in task.dev]
        by_task = {name: [result for result in found if result.task == name] for name in self._names}
        self.rows = {
            name: Row(name, tuple(sorted(results, key=lambda result: result.seed)))
            for name, results in by_task.items()
            if results
        }

    @property
    def averages(self) -> dict[str, float | None]:
        """The mean over the eight tasks, and over nine with MNLI's mismatched genres. None if a task is missing."""
        groups = {f"avg{len(names)}": names for names in (list(GLUE), self._names)}
        return {
            average: mean(self.rows[name].median for name in names) if self.rows.keys() >= set(names) else None
            for average, names in groups.items()
        }

    @property
    def worst(self) -> Row | None:
        """The task with the lowest median, not counting mismatched MNLI. None if there are no results."""
        rows = [row for name, row in self.rows.items() if name in GLUE]
        return min(rows, key=lambda row: row.median, default=None)

    def markdown(self) -> str:
        """The table, in percent."""
        rows = []
        for name, row in self.rows.items():
            spread = [f"{100 * value:.1f}" for value in (row.median, min(row.values), max(row.values))]
            rows.append([name, row.results[0].metric, *spread, str(len(row.results))])
        means = {name: value for name, value in self.averages.items() if value is not None}
        if self.worst is not None:
            means[f"worst: {self.worst.task}"] = self.worst.median
        rows += [[name, "", f"{100 * value:.1f}", "", "", ""] for name, value in means.items()]
        return markdown_table(["task", "metric", "median", "lowest", "highest", "seeds"], rows)

    def to_dict(self) -> dict[str, Any]:
        """The table in plain values, as fractions."""
        return {
            "pretrained": self.pretrained,
            "tasks": {
                name: {
                    "metric": row.results[0].metric,
                    "median": row.median,
                    "lowest": min(row.values),
                    "highest": max(row.values),
                    "metrics": {
                        metric: median(result.metrics[metric] for result in row.results)
                        for metric in row.results[0].metrics
                    },
                    "seeds": {str(result.seed): result.value for result in row.results},
                }
                for name, row in self.rows.items()
            },
            **self.averages,
            "worst": None if self.worst is None else {"task": self.worst.task, "median": self.worst.median},
        }

    def save(self, output: Path) -> None:
        """Write table.md and table.json."""
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / "table.md", self.markdown())
        write_atomically(output / "table.json", json.dumps(self.to_dict(), indent=2) + "\n")
