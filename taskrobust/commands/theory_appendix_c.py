import math
from pathlib import Path
from typing import Annotated

from taskrobust._io.settings import AT_LEAST_0
from taskrobust._io.tables import markdown_table
from taskrobust.report.render import show_table
from taskrobust.studies.results import print_paths, save
from taskrobust.studies.theory.appendix_c import OutlierExample
from taskrobust.studies.theory.plots import plot_outlier


def theory_appendix_c(output: Path = Path("runs/theory/appendix-c"), alpha: Annotated[float, AT_LEAST_0] = 1.0) -> None:
    """Compare average and minimax on the corrected example of appendix C and print the paper's values next to them.

    Writes appendix-c.md, appendix-c.json and appendix-c.png. Takes seconds.

    Args:
        output: Folder for the results.
        alpha: Constant inverse temperature of softmax weighted gradient descent, for comparison.
    """
    examples = [OutlierExample.of_the_paper(tasks) for tasks in (3, 10, 30, 100, 300, 1000)]
    header = ["T", "average", "minimax", "ratio", "as printed", f"alpha = {alpha:g}", "largest ratio, any A"]
    rows, values = [], []
    for example in examples:
        worst = {
            "average": example.worst_risk(example.theta_average),
            "minimax": example.worst_risk(example.theta_minimax),
            "ratio": example.ratio,
            "ratio as printed": example.ratio_paper,
            "softmax": example.worst_risk(example.theta_softmax(alpha)),
            "largest ratio": (math.sqrt(example.num_tasks) + 1) ** 2 / 4,
        }
        rows.append([str(example.num_tasks), *(f"{value:.4g}" for value in worst.values())])
        values.append({"num_tasks": example.num_tasks, "curvature": example.curvature, **worst})
    title = "Worst risk of the average and of minimax, A = T - 1"
    show_table(header, rows, title)
    save(output, "appendix-c", [markdown_table(header, rows, title)], values)
    plot_outlier(OutlierExample.of_the_paper(10), examples, output / "appendix-c.png")
    print_paths(output, "appendix-c", "appendix-c.png")
