"""How much of a weighting's effect nine numbers have: biases of the classes, added to a trained PoS-BERT.

The probability of each piece and class is multiplied by a factor of the class, exp(b_c), as label shift does:

    q'(y) = q(y) sum_c A[y, c] exp(b_c) / sum_c q(c) exp(b_c)

The biases are fitted on one half of the held-out pairs, to the mean of the nine risks or to the worst, and evaluated on
the other half. The risks within the classes do not change. Where a model with biases reaches the raw risks of one that
was trained with minimax, the weighting has moved the prior of the classes.

Run: ``python benchmarks/prior_shift.py token-mean=runs/a minimax=runs/b``; several runs of a label are its seeds.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from taskrobust._io.tables import markdown_table
from taskrobust.nlp.corpus.store import Corpus
from taskrobust.nlp.decomposition import class_distribution, decompose
from taskrobust.nlp.masking import Masking
from taskrobust.nlp.model import PosBertForPreTraining
from taskrobust.nlp.tagging.tagset import CLASSES

SEED = 20231202
BATCH = 64


class Losses(NamedTuple):
    """Of M masked pieces: raw losses, losses within their class, log q(c | x), log A[y, c] and the class."""

    raw: Tensor
    within: Tensor
    log_classes: Tensor
    log_given: Tensor
    classes: Tensor

    def rows(self, chosen: Tensor) -> "Losses":
        """Some of the pieces."""
        return Losses(*(values[chosen] for values in self))


@torch.no_grad()
def held_out_losses(run: Path, pairs: int) -> tuple[Losses, Tensor]:
    """The losses of a run's final model, and which pieces belong to the first half of the pairs."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    train, held_out = Corpus(config["corpus"]["train"]), Corpus(config["corpus"]["held_out"])
    distribution = class_distribution(train.counts)
    model = PosBertForPreTraining.from_pretrained(run / "model").eval()
    scores: list[Tensor] = []
    model.cls.predictions.register_forward_hook(lambda module, given, output: scores.append(output))
    masks = Masking(train.tokenizer, schedule="dynamic", seed=SEED)
    parts, first = [], []
    pairs = min(pairs, len(held_out))
    for start in range(0, pairs, BATCH):
        batch = masks(held_out.__getitems__([(index, 0) for index in range(start, min(start + BATCH, pairs))]))
        model(**batch)
        logits, labels, classes = scores.pop(), batch["labels"], batch["classes"]
        probabilities = logits.double().softmax(1)
        within, of_class = decompose(logits, labels, classes, distribution)
        raw = within + of_class + distribution[labels, classes].log()
        log_classes = (probabilities @ distribution.double()).log()
        parts.append(Losses(raw.double(), within.double(), log_classes, distribution[labels].double().log(), classes))
        first.append((start + batch["masked_positions"] // batch["input_ids"].shape[1]) % 2 == 0)
    return Losses(*map(torch.cat, zip(*parts, strict=True))), torch.cat(first)


def risks(losses: Losses, biases: Tensor) -> Tensor:
    """Raw risks of the nine classes with biases of the classes, [9]; that of ``OUTSIDE`` is 0."""
    shift = torch.cat([biases, biases.new_zeros(1)])
    moved = losses.raw - (losses.log_given + shift).logsumexp(1) + (losses.log_classes + shift).logsumexp(1)
    return by_class(moved, losses.classes)


def by_class(values: Tensor, classes: Tensor) -> Tensor:
    """Means of the nine classes."""
    return torch.stack([values[classes == index].mean() for index in range(len(CLASSES))])


def smooth_maximum(values: Tensor, sharpness: float = 100.0) -> Tensor:
    """At most log(9) / sharpness above the largest."""
    return (sharpness * values).logsumexp(0) / sharpness


def fit(losses: Losses, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """The biases that minimize a function of the risks."""
    biases = torch.zeros(len(CLASSES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([biases], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-10)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(risks(losses, biases))
        value.backward()
        return value

    optimizer.step(closure)
    return biases.detach()


def rows_of(run: Path, pairs: int) -> dict[str, Tensor]:
    """The table's rows of one run: risks on the second half of the pairs."""
    losses, first = held_out_losses(run, pairs)
    fitting, evaluating = losses.rows(first), losses.rows(~first)
    found = {"raw": risks(evaluating, torch.zeros(len(CLASSES), dtype=torch.float64))}
    for name, objective in (("mean", torch.mean), ("worst", smooth_maximum)):
        found[f"raw, biases for the {name}"] = risks(evaluating, fit(fitting, objective))
    return found | {"within": by_class(evaluating.within, evaluating.classes)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="LABEL=RUN, once for each seed")
    parser.add_argument("--pairs", type=int, default=4096, help="held-out pairs")
    arguments = parser.parse_args()
    labels: dict[str, list[Path]] = {}
    for given in arguments.runs:
        label, _, run = given.partition("=")
        labels.setdefault(label, []).append(Path(run))
    rows = []
    for label, runs in labels.items():
        of_runs = [rows_of(run, arguments.pairs) for run in runs]
        for name in of_runs[0]:
            values = torch.stack([found[name] for found in of_runs])
            columns = [*values.T, values.mean(1), values.max(1).values]
            rows.append([label, name, *(_cell(column.tolist()) for column in columns)])
    print(markdown_table(["run", "risk", *CLASSES, "mean", "worst"], rows))


def _cell(values: list[float]) -> str:
    mean = fmean(values)
    return f"{mean:.3f}" if len(values) == 1 or math.isnan(mean) else f"{mean:.3f} ± {stdev(values):.3f}"


if __name__ == "__main__":
    main()
