"""Pre-trains with several weightings and seeds and prints one table of held-out risks, mean and spread.

python benchmarks/compare_weightings.py configs/nlp/books-small.yaml --seeds 0 1 2 --jobs 2
python benchmarks/compare_weightings.py configs/vision/nyu-small.yaml --weightings average gradnorm dwa minimax

A weighting is a configuration in configs/vision, for a configuration of images, or in configs/weighting.
Runs that are finished are not run again; a run that was cut off goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--weightings", nargs="+", default=["token-mean", "average", "minimax"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="the last one: options of the command")
    arguments = parser.parse_args()
    cells = list(product(arguments.weightings, arguments.seeds))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = dict(zip(cells, pool.map(lambda cell: train(arguments, *cell), cells), strict=True))
    print(table(results, arguments.weightings, arguments.seeds))


def train(arguments: argparse.Namespace, weighting: str, seed: int) -> dict[str, float]:
    output = arguments.output / Path(arguments.config).stem / f"{weighting}-seed{seed}"
    if not (output / "model/evaluation.json").exists():
        of_images = "modalities" in yaml.safe_load(Path(arguments.config).read_text())
        places = [CONFIGS / "vision", CONFIGS / "weighting"] if of_images else [CONFIGS / "weighting"]
        overlay = next(path for place in places if (path := place / f"{weighting}.yaml").exists())
        configs = ["--config", arguments.config, "--config", str(overlay)]
        place = ["--loop.seed", str(seed), "--output", str(output)]
        command = [
            sys.executable,
            "-m",
            "taskrobust",
            "pretrain-mae" if of_images else "pretrain-bert",
            *configs,
            *place,
            *arguments.options,
        ]
        environment = os.environ | ({"OMP_NUM_THREADS": "1"} if arguments.jobs > 1 else {})
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{output}.log", "a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    evaluation = json.loads((output / "model/evaluation.json").read_text())
    return evaluation["risks"] | {"mean": evaluation["mean"], "worst": evaluation["worst"]}


def table(results: dict[tuple[str, int], dict[str, float]], weightings: list[str], seeds: list[int]) -> str:
    lines = [f"| held-out risk | {' | '.join(weightings)} |", f"|---|{'---:|' * len(weightings)}"]
    for row in results[weightings[0], seeds[0]]:
        columns = []
        for weighting in weightings:
            values = [results[weighting, seed][row] for seed in seeds]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            columns.append(f"{statistics.mean(values):.3f}{spread}")
        lines.append(f"| {row} | {' | '.join(columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
