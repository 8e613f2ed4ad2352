"""Times a training step under each weighting beside a step on the plain sum of the losses.

A step is forward, criterion, backward and a fused AdamW step, for three tasks on a trunk of 24 layers of 512 units
(6.3 million parameters) and one linear head each, 256 rows a batch. All weightings take turns on one model in one
process, in a new order each round, and CPU process time is taken.

Two tables: the step's time over that on the plain sum, as ratio of the medians and as median of the rounds' ratios,
and the floating point operations in units of the plain step, beside Table 3 of the first paper. FAMO of torchjd
computes the losses a second time after the step, as its documentation says.

Run: ``OMP_NUM_THREADS=1 python benchmarks/weighting_overhead.py``
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from random import Random

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from taskrobust import (
    Fixed,
    FixedReference,
    GradNorm,
    Gramian,
    ModelReference,
    MultiTaskLoss,
    PowerLawReference,
    RiskEstimator,
    SoftmaxMinimax,
    TaskLosses,
)
from taskrobust.weighting import strategies

TASKS = ("a", "b", "c")
ROWS, WIDTH, LAYERS, OUTPUTS = 256, 512, 24, 32
PAPER = {"SoftmaxMinimax": 2, "Uncertainty": 2, "DWA": 3, "GradNorm": 4}
PLAIN = "plain sum"

Step = Callable[[], None]
"""Everything between ``zero_grad`` and the optimizer's step."""


class Model(nn.Module):
    """A trunk with a head for each task."""

    def __init__(self) -> None:
        super().__init__()
        layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.GELU())]
        self.trunk = nn.Sequential(*layers[:-1])
        self.heads = nn.ModuleList(nn.Linear(WIDTH, OUTPUTS) for _ in TASKS)

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """Mean loss of each task, and the activation that they share."""
        hidden = self.trunk(inputs)
        return [(head(hidden) - 1).square().mean() for head in self.heads], hidden


class Bench:
    """Steps under every weighting on one model."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Model()
        self.inputs = torch.randn(ROWS, WIDTH)
        self.own_parameters: list[nn.Parameter] = []
        self.steps: dict[str, Step] = {PLAIN: self.plain}
        self.after: dict[str, Step] = {}
        for name, strategy in strategies().items():
            if strategy in (GradNorm, Gramian):
                continue
            weighting = Fixed([0.5, 0.3, 0.2]) if strategy is Fixed else strategy()
            self.add(f"taskrobust {name}", MultiTaskLoss(TASKS, weighting), lambda hidden: None)
        for reference in (FixedReference([0.1, 0.2, 0.3]), PowerLawReference(), ModelReference()):
            risk = RiskEstimator(smoothing=0.9, reference=reference)
            name = f"taskrobust SoftmaxMinimax, {type(reference).__name__}"
            self.add(name, MultiTaskLoss(TASKS, SoftmaxMinimax(), risk=risk), lambda hidden: None)
        last_layer = self.model.trunk[-1].weight
        gradnorm = "taskrobust GradNorm"
        self.add(f"{gradnorm}, last layer", MultiTaskLoss(TASKS, GradNorm()), lambda hidden: [last_layer])
        self.add(f"{gradnorm}, activation", MultiTaskLoss(TASKS, GradNorm()), lambda hidden: hidden)
        self.add_torchjd()
        self.optimizer = torch.optim.AdamW([*self.model.parameters(), *self.own_parameters], lr=1e-5, fused=True)

    def plain(self) -> None:
        """The sum of the losses."""
        sum(self.model(self.inputs)[0]).backward()

    def add(self, name: str, criterion: MultiTaskLoss, shared: Callable[[Tensor], object]) -> None:
        """One of ours."""
        counts = torch.full((len(TASKS),), float(ROWS))

        def step() -> None:
            means, hidden = self.model(self.inputs)
            reference = None
            if criterion.risk.needs_reference_model:
                with torch.no_grad():  # a frozen model of the same size
                    reference = TaskLosses(torch.stack(self.model(self.inputs)[0]) * counts, counts)
            losses = TaskLosses(torch.stack(means) * counts, counts)
            criterion(losses, shared=shared(hidden), reference=reference).backward()

        self.steps[name] = step
        self.own_parameters += criterion.parameters()

    def add_torchjd(self) -> None:
        """Theirs, where it is installed."""
        try:
            from torchjd import aggregation, autojac, scalarization
        except ImportError:
            return
        scalarizers = {
            "Sum": scalarization.Sum(),
            "STCH": scalarization.STCH(mu=1.0, weights=torch.ones(len(TASKS))),
            "UW": scalarization.UW(len(TASKS)),
            "DWA": scalarization.DWA(),
            "FAMO": scalarization.FAMO(len(TASKS)),
        }
        for name, scalarizer in scalarizers.items():
            self.steps[f"torchjd {name}"] = lambda s=scalarizer: s(torch.stack(self.model(self.inputs)[0])).backward()
            if name == "UW":
                self.own_parameters += scalarizer.parameters()
        famo = scalarizers["FAMO"]

        @torch.no_grad()
        def update_famo() -> None:
            famo.update(torch.stack(self.model(self.inputs)[0]))

        self.after["torchjd FAMO"] = update_famo
        mgda = aggregation.MGDA()

        def step_on_mgda() -> None:
            means, hidden = self.model(self.inputs)
            autojac.mtl_backward(means, features=hidden)
            autojac.jac_to_grad(self.model.trunk.parameters(), mgda)

        self.steps["torchjd MGDA"] = step_on_mgda

    def step(self, name: str) -> None:
        """One step of training."""
        self.optimizer.zero_grad()
        self.steps[name]()
        self.optimizer.step()
        if name in self.after:
            self.after[name]()

    def seconds(self, rounds: int) -> dict[str, list[float]]:
        """Process time of each step in each round."""
        taken: dict[str, list[float]] = {name: [] for name in self.steps}
        shuffled, random = list(self.steps), Random(0)
        for round_number in range(rounds + 1):
            random.shuffle(shuffled)
            for name in shuffled:
                start = time.process_time()
                self.step(name)
                if round_number > 0:  # the first warms up
                    taken[name].append(time.process_time() - start)
        return taken

    def flops(self) -> dict[str, int]:
        """Floating point operations of a step: those of its matrix products."""
        counted = {}
        for name in self.steps:
            with FlopCounterMode(display=False) as counter:
                self.step(name)
            counted[name] = counter.get_total_flops()
        return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="steps of each weighting")
    rounds = parser.parse_args().rounds
    bench = Bench()
    shared = sum(parameter.numel() for parameter in bench.model.trunk.parameters())
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {shared:,} shared parameters, {rounds} rounds"
    )
    for peer in ("torchjd", "LibMTL"):
        try:
            print(f"{peer} {version(peer)}")
        except PackageNotFoundError:
            print(f"{peer}: not installed")

    seconds = bench.seconds(rounds)
    plain = seconds[PLAIN]
    print(f"\n| step on | ms, median | ms, minimum | ratio of medians | median of ratios |\n|{'---|' * 5}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        in_rounds = statistics.median(own / its_plain for own, its_plain in zip(taken, plain, strict=True))
        of_medians = median / statistics.median(plain)
        print(f"| {name} | {1e3 * median:.1f} | {1e3 * min(taken):.1f} | {of_medians:.3f} | {in_rounds:.3f} |")

    flops = bench.flops()
    print("\n| step on | operations, plain step = 1 | the paper's Table 3 |\n|---|---|---|")
    for name, counted in flops.items():
        paper = next((f"{ratio}" for paper_name, ratio in PAPER.items() if f"taskrobust {paper_name}" in name), "")
        print(f"| {name} | {counted / flops[PLAIN]:.3f} | {paper} |")


if __name__ == "__main__":
    main()
