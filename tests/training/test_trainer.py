import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.helpers.processes import Toy
from tests.helpers.toy import SAMPLES, STEPS, ToyData, ToyModel, collate, digest, digests, exported, lines


@pytest.mark.parametrize("average", ["none", "ema", "iterate"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_model_that_is_exported_has_the_risks_that_were_reported(
    toy: Toy, tmp_path: Path, average: str, precision: str
) -> None:
    assert toy(tmp_path / "run", average=average, precision=precision).codes == [0]
    model = ToyModel().eval()
    model.load_state_dict(exported(tmp_path / "run"))
    assert (digest(model.state_dict()) == digests(tmp_path / "run")[STEPS]) == (average == "none")
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    with torch.no_grad(), autocast:
        losses = model(**collate(ToyData().__getitems__([(index, 0) for index in range(32)]))).losses
    reported = lines(tmp_path / "run", "held_out")[-1]
    assert list(reported["risks"].values()) == pytest.approx((losses.sums / losses.counts).tolist(), rel=1e-5)
    assert json.loads((tmp_path / "run" / "model" / "evaluation.json").read_text())["risks"] == reported["risks"]


@pytest.mark.parametrize("average", ["ema", "iterate"])
def test_average_begins_with_the_first_step(toy: Toy, tmp_path: Path, average: str) -> None:
    assert toy(tmp_path / "run", average=average, steps=1, warmup_steps=0).codes == [0]
    assert digest(exported(tmp_path / "run")) == digests(tmp_path / "run")[1]


def test_two_passes_draw_the_same_dropout(toy: Toy, tmp_path: Path) -> None:
    settings = {"accumulation": 2, "window_weights": "two_pass", "dropout": 0.5, "log_every": 1}
    assert toy(tmp_path / "run", **settings).codes == [0]
    for line in lines(tmp_path / "run", "train"):
        risks = {task: risk for task, risk in line["risks"].items() if risk is not None}
        values = torch.tensor(list(risks.values()))
        weights = (3 * values / values.mean()).softmax(0)
        assert [line["weights"][task] for task in risks] == pytest.approx(weights.tolist(), rel=1e-4, abs=1e-7)


def test_model_whose_worst_task_did_best_is_kept(toy: Toy, tmp_path: Path) -> None:
    assert toy(tmp_path / "run", eval_every=1, lr=0.5, schedule="constant").codes == [0]
    evaluations = lines(tmp_path / "run", "held_out")
    worst = [line["worst"] for line in evaluations]
    assert [line["best"] for line in evaluations] == [value < min([*worst[:i], 1e9]) for i, value in enumerate(worst)]
    assert min(worst) < worst[-1]
    kept = json.loads((tmp_path / "run" / "best" / "evaluation.json").read_text())
    assert kept["worst"] == min(worst)
    model = torch.load(tmp_path / "run" / "best" / "model.pt")
    assert digest(model) == digests(tmp_path / "run")[kept["step"]]


def test_weighting_learns_when_an_epoch_is_over(toy: Toy, tmp_path: Path) -> None:
    assert toy(tmp_path / "run", weighting="dwa_by_epoch", steps=40, log_every=1).codes == [0]
    for line in lines(tmp_path / "run", "train"):
        weights = {round(weight, 6) for weight in line["weights"].values() if weight > 0}
        if list(line["weights"].values()).count(0) < 2:
            # Two epochs have to be over before their risks can be compared.
            assert (len(weights) == 1) == (line["samples"] - 4 < 2 * SAMPLES)


def test_learning_rate_of_each_step_is_reported(toy: Toy, tmp_path: Path) -> None:
    assert toy(tmp_path / "run", log_every=1, warmup_steps=4, lr=0.5).codes == [0]
    rates = [line["lr"] for line in lines(tmp_path / "run", "train")]
    assert rates == pytest.approx([0, 0.125, 0.25, 0.375, *(0.5 * (1 - step / 16) for step in range(16))])


def test_gradient_is_clipped_and_its_norm_reported(toy: Toy, tmp_path: Path) -> None:
    settings = {"log_every": 1, "eps": 1e3, "schedule": "constant", "warmup_steps": 0}
    for name, norm in (("free", 1e9), ("clipped", 1e-4)):
        assert toy(tmp_path / name, clip_norm=norm, **settings).codes == [0]
    free, clipped = (lines(tmp_path / name, "train") for name in ("free", "clipped"))
    assert free[0]["gradient_norm"] == clipped[0]["gradient_norm"] > 1
    # With so large an eps the step is proportional to the gradient: clipped to nothing, the parameters stay.
    assert free[-1]["risks"] != clipped[-1]["risks"]


def test_ranks_draw_different_dropout(toy: Toy, tmp_path: Path) -> None:
    assert toy(tmp_path / "run", processes=2, dropout=0.3).codes == [0, 0]
    checkpoint = tmp_path / "run" / "checkpoints" / f"step-{STEPS:08d}"
    states = [torch.load(checkpoint / f"random_states_{rank}.pkl", weights_only=False) for rank in (0, 1)]
    assert not torch.equal(states[0]["torch_manual_seed"], states[1]["torch_manual_seed"])
