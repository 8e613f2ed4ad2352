"""What came of all fine-tunings of a pre-trained model: medians over seeds, two averages and the worst task."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from taskrobust._io.tables import markdown_table
from taskrobust.nlp.glue.tasks import GLUE
from taskrobust.training.results import RESULTS, Result, read_results


def run_path(output: Path, task: str, seed: int) -> Path:
    """The run folder of a task and a seed."""
    return output / task / f"seed{seed}"


@dataclass(frozen=True)
class Row:
    """The last models of a task on the dev set.

    Args:
        task: Name of the task.
        results: One for each seed, in the order of the seeds.
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
        """The seed whose value is the median; of an even number the lower one of the two in the middle."""
        return sorted(self.results, key=lambda result: result.value)[(len(self.results) - 1) // 2].seed


class GlueTable:
    """All results in a folder of fine-tunings.

    Args:
        output: The folder, with a run for each task and seed.
    """

    def __init__(self, output: Path) -> None:
        found = [result for path in sorted(output.glob(f"*/*/{RESULTS}")) for result in read_results(path.parent)]
        self.pretrained = sorted({result.pretrained for result in found})
        """What was fine-tuned."""
        names = [name for task in GLUE.values() for name in task.dev]
        by_task = {name: [result for result in found if result.task == name] for name in names}
        self.rows = {
            name: Row(name, tuple(sorted(results, key=lambda result: result.seed)))
            for name, results in by_task.items()
            if results
        }

    @property
    def averages(self) -> dict[str, float | None]:
        """The mean of the eight tasks, and that of nine with MNLI's mismatched genres; None while one is missing."""
        medians = {name: row.median for name, row in self.rows.items()}
        complete = all(name in medians for name in GLUE)
        return {
            "avg8": mean(medians[name] for name in GLUE) if complete else None,
            "avg9": mean(medians.values()) if complete else None,
        }

    @property
    def worst(self) -> Row | None:
        """The one of the eight tasks with the lowest median; None without any result."""
        eight = [row for name, row in self.rows.items() if name in GLUE]
        return min(eight, key=lambda row: row.median, default=None)

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
        """The table in plain values, as shares of one."""
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
        (output / "table.md").write_text(self.markdown())
        (output / "table.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n")
