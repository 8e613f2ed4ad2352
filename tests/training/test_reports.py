import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.processes import Toy
from tests.helpers.toy import ToyData, ToyModel, assert_same_curve, assert_same_run, collate, lines

SCORED = {"dropout": 0.3, "eval_every": 4, "lr": 0.5, "schedule": "constant", "report_from": "best"}


def closeness(state: dict[str, Tensor]) -> float:
    """Of all samples, computed at once."""
    model = ToyModel()
    model.load_state_dict(state)
    batch = collate(ToyData().__getitems__([(index, 0) for index in range(50)]))
    predictions = model.eval()(**batch).predictions
    return -nn.functional.l1_loss(predictions[:, 0], batch["targets"][:, 0]).item()


def load(path: Path) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(path / "model.pt")
    return loaded


def test_best_model_is_that_of_the_best_score(toy: Toy, tmp_path: Path) -> None:
    outcome = toy(tmp_path, **SCORED)
    assert outcome.codes == [0], outcome.output
    scores = {line["step"]: line["scores"]["closeness"] for line in lines(tmp_path, "held_out")}
    best = max(scores, key=lambda step: scores[step])
    assert best != 20
    assert json.loads((tmp_path / "best/evaluation.json").read_text())["step"] == best
    assert f"step {best}: held-out closeness {scores[best]:.4f}, the best so far" in outcome.output


@pytest.mark.parametrize(("report_from", "folder"), [("best", "best"), ("last", "model")])
def test_report_is_of_the_model_that_was_asked_for(toy: Toy, tmp_path: Path, report_from: str, folder: str) -> None:
    toy(tmp_path, **SCORED | {"report_from": report_from})
    (report,) = lines(tmp_path, "test")
    assert report["scores"]["closeness"] == pytest.approx(closeness(load(tmp_path / folder)), abs=1e-6)
    assert closeness(load(tmp_path / "best")) != closeness(load(tmp_path / "model"))


def test_run_with_reports_goes_on_bit_by_bit(toy: Toy, tmp_path: Path) -> None:
    settings = SCORED | {"lengths": 1, "epochs": 1.6}
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    assert toy(reference, **settings).codes == [0]
    assert toy(killed, signal="SIGKILL:13", **settings).codes == [-9]
    assert toy(killed, **settings).codes == [0]
    assert_same_run(killed, reference)
    assert [line["step"] for line in lines(killed, "test")] == [20]


def test_two_processes_report_what_one_does(toy: Toy, tmp_path: Path) -> None:
    settings = SCORED | {"dropout": 0, "lengths": 1, "lr": 0.01}
    assert toy(tmp_path / "one", **settings).codes == [0]
    assert toy(tmp_path / "two", processes=2, **settings | {"batch_size": 2}).codes == [0, 0]
    assert_same_curve(tmp_path / "two", tmp_path / "one")


def test_epochs_are_steps_over_all_samples(toy: Toy, tmp_path: Path) -> None:
    toy(tmp_path, epochs=0.5)
    assert lines(tmp_path, "train")[-1]["step"] == 7  # 25 samples in steps of 4


def test_steps_and_epochs_together_are_an_error(toy: Toy, tmp_path: Path) -> None:
    outcome = toy(tmp_path, epochs=0.5, both=1)
    assert outcome.codes == [1]
    assert "Expected loop.steps or loop.epochs, got 20 steps and 0.5 epochs. Set one to null." in outcome.output


def test_sharded_model_reports_the_last_only(toy: Toy, tmp_path: Path) -> None:
    outcome = toy(tmp_path, processes=2, parallel="fsdp2", **SCORED)
    assert outcome.codes == [1, 1]
    assert "Expected parallel='ddp' to report from the best model, got 'fsdp2'." in outcome.output
