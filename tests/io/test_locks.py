import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from taskrobust._io.locks import locked


def hold(folder: Path, held: Event, go: Event) -> None:
    with locked(folder):
        held.set()
        go.wait(20)
        (folder / "made").touch()


def test_second_process_waits_until_the_first_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    held, go = context.Event(), context.Event()
    folder = tmp_path / "deep/rooms"
    folder.mkdir(parents=True)
    process = context.Process(target=hold, args=(folder, held, go))
    process.start()
    held.wait(20)
    context.Process(target=_let_go, args=(go,)).start()
    with locked(folder):
        assert (folder / "made").exists()
    process.join(20)
    assert capsys.readouterr().out == f"Waiting for another process, which makes {folder}.\n"


def _let_go(go: Event) -> None:
    time.sleep(0.5)
    go.set()


def test_process_that_dies_lets_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, go = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "rooms", held, go))
    process.start()
    held.wait(20)
    process.kill()
    process.join(20)
    with locked(tmp_path / "rooms"):
        pass
