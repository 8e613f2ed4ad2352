import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from taskrobust.training.callbacks import Callback, Trackers
from taskrobust.training.evaluation import Evaluation
from taskrobust.training.trainer import Trainer
from tests.helpers.processes import Toy
from tests.helpers.toy import lines, make_trainer


class Notes(Callback):
    """Notes which hooks were called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_start(self, trainer: Trainer) -> None:
        self.calls.append(("start", trainer.progress.step))

    def on_step(self, trainer: Trainer) -> None:
        self.calls.append(("step", trainer.progress.step))

    def on_metrics(self, trainer: Trainer, line: Any) -> None:
        self.calls.append(("metrics", line["split"], line["step"]))

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation, split: str, best: bool) -> None:
        self.calls.append(("evaluation", split, best, evaluation.worst_task))

    def on_checkpoint(self, trainer: Trainer) -> None:
        self.calls.append(("checkpoint", trainer.progress.step))

    def on_end(self, trainer: Trainer) -> None:
        self.calls.append(("end", trainer.progress.step))


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a trainer of the toy recipe in this process."""

    def make(*callbacks: Callback, **settings: object) -> Trainer:
        made = make_trainer(tmp_path / "run", {name: str(value) for name, value in settings.items()})
        made.callbacks += callbacks
        return made

    return make


def test_every_hook_is_called_in_order(trainer: Callable[..., Trainer]) -> None:
    notes = Notes()
    trainer(notes, steps=4, eval_every=3, checkpoint_every=2).train()
    assert notes.calls == [
        ("start", 0),
        ("step", 1),
        ("metrics", "train", 2),
        ("step", 2),
        ("checkpoint", 2),
        ("step", 3),
        ("metrics", "held_out", 3),
        ("evaluation", "held_out", True, "rare"),
        ("metrics", "train", 4),
        ("step", 4),
        ("checkpoint", 4),
        ("metrics", "held_out", 4),
        ("evaluation", "held_out", True, "rare"),
        ("end", 4),
    ]


def test_callback_may_stop_a_run_which_ends_as_usual(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step(self, trainer: Trainer) -> None:
            trainer.should_stop = trainer.progress.step == 5

    trainer(Stop()).train()
    assert lines(tmp_path / "run", "train")[-1]["step"] == 4
    assert [line["step"] for line in lines(tmp_path / "run", "held_out")] == [5]
    assert (tmp_path / "run/model").is_dir()


def test_on_end_is_called_after_an_error(trainer: Callable[..., Trainer]) -> None:
    class Breaks(Callback):
        def on_step(self, trainer: Trainer) -> None:
            raise ArithmeticError("enough")

    notes = Notes()
    with pytest.raises(ArithmeticError, match="enough"):
        trainer(notes, Breaks()).train()
    assert notes.calls == [("start", 0), ("step", 1), ("end", 1)]


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(point.step, point.value) for point in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def test_tensorboard_has_every_line(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer(steps=4, eval_every=2).train()
    curves = points(tmp_path / "run")
    for line in lines(tmp_path / "run", "train"):
        for task, risk in line["risks"].items():
            if risk is not None:
                assert (line["step"], pytest.approx(risk)) in curves[f"risk/{task}"]
    assert [step for step, _ in curves["held_out/worst"]] == [2, 4]
    assert {"train/samples_per_second", "train/data_loading_share", "train/peak_memory_gib"} <= curves.keys()


def test_curves_of_a_killed_run_have_neither_gaps_nor_points_twice(toy: Toy, tmp_path: Path) -> None:
    assert toy(tmp_path / "run", signal="SIGKILL:13").codes == [-9]
    assert toy(tmp_path / "run").codes == [0]
    assert [step for step, _ in points(tmp_path / "run")["train/loss"]] == list(range(2, 21, 2))


def test_tracker_that_fails_is_reported_once_and_does_not_end_the_run(
    trainer: Callable[..., Trainer], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("accelerate.tracking.TensorBoardTracker.log", fail)
    trainer(steps=6).train()
    message = "The tracker tensorboard failed (ConnectionError: no network). Training continues without it;"
    assert capsys.readouterr().out.count(message) == 1
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [2, 4, 6]


def test_tracker_that_is_not_installed_is_one_sentence(trainer: Callable[..., Trainer]) -> None:
    run = trainer()
    with pytest.raises(ValueError, match=r"^Expected the tracker fog to be installed: pip install fog\.$"):
        Trackers(["fog"]).on_start(run)


@pytest.mark.filterwarnings("ignore")  # of the trackers themselves
@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_other_trackers_write_into_the_run_folder_offline(
    name: str,
    trainer: Callable[..., Trainer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    run = trainer(steps=4)
    run.callbacks[0] = Trackers([name])
    run.train()
    assert "failed" not in capsys.readouterr().out
    assert any(name in path.name for path in (tmp_path / "run").iterdir())


def test_text_is_said_as_it_is(trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]) -> None:
    text = "[enforce fail at inline_container.cc:595] :warning: unexpected pos [/] " + 20 * "long line "
    trainer().say(text)
    assert capsys.readouterr().out == text + "\n"


def test_evaluation_is_a_sentence(trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer()
    scored = Evaluation({"easy": 1.0}, 1.0, 1.0, "easy", {"accuracy": 0.75, "f1": 0.5})
    show = run.callbacks[1]
    show.on_evaluation(run, Evaluation({"easy": 1.0, "hard": 2.5, "rare": 1.0}, 1.5, 2.5, "hard"), "held_out", True)
    show.on_evaluation(run, scored, "held_out", False)
    show.on_evaluation(run, scored, "test", True)
    assert capsys.readouterr().out.splitlines() == [
        "step 0: held-out mean 1.500, worst 2.500 (hard), the best so far",
        "step 0: held-out accuracy 0.7500, f1 0.5000, without ['hard', 'rare'], which had no elements",
        "step 0: test accuracy 0.7500, f1 0.5000, without ['hard', 'rare'], which had no elements, of the best model",
    ]
