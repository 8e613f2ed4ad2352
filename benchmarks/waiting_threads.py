"""What threads that spin cost a small training on a busy machine.

Trains the demo's PoS-BERT for a hundred steps with one thread, with two that wait as OpenMP does by default, and two
that sleep soon (as taskrobust/threads.py has it) or at once, while 0 or 2 other processes keep a core busy each.

Run: ``python benchmarks/waiting_threads.py``
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CANDIDATES = {
    "one": {"OMP_NUM_THREADS": "1"},
    "two, OpenMP's default": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "300000"},
    "two, sleeping at once": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    "two, 1,000 spins": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    print(
        "| busy processes | threads | samples/s, median (lowest, highest) | CPU seconds of the run |\n|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "first", Path(folder), {}, 1)  # makes the corpus
        for busy in (0, 2):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                for name, environment in CANDIDATES.items():
                    measured = [
                        train(Path(folder) / f"{busy}-{name}-{number}", Path(folder), environment, arguments.steps)
                        for number in range(arguments.repeat)
                    ]
                    speeds, seconds = zip(*measured, strict=True)
                    speed = f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f}, {max(speeds):,.0f})"
                    print(f"| {busy} | {name} | {speed} | {statistics.median(seconds):.1f} |", flush=True)
            finally:
                for process in others:
                    process.kill()
                    process.wait()


def train(output: Path, folder: Path, environment: dict[str, str], steps: int) -> tuple[float, float]:
    """Samples per second over the last half of a training, and the CPU seconds of its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    corpus = ["--corpus.train", str(folder / "train"), "--corpus.held_out", str(folder / "held-out")]
    options = ["--loop.steps", str(steps), "--loop.log_every", str(max(1, steps // 2)), "--held_out_pairs", "64"]
    options += ["--device.precision", "fp32", "--output", str(output)]
    command = [sys.executable, "-m", "taskrobust", "pretrain-bert", "--config", "configs/nlp/demo.yaml"]
    subprocess.run([*command, *corpus, *options], check=True, stdout=subprocess.DEVNULL, env=os.environ | environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    speed = [line["samples_per_second"] for line in lines if line["split"] == "train"][-1]
    return speed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
