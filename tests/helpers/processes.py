"""Runs of the toy recipe, each in processes of its own, forked from one that has imported torch already."""

import multiprocessing
import os
import socket
import sys
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.helpers import toy as toy_recipe

ROOT = Path(__file__).parents[2]
TIMEOUT = 60
SLOW_TO_IMPORT = ("transformers.optimization", "torch._dynamo", "torch.distributed.tensor")


@dataclass
class Outcome:
    """How a run ended, on each rank, and what it printed."""

    codes: list[int | None]
    output: str


class Toy:
    """Starts runs of the toy recipe: ``toy(folder, processes=2, weighting="grad_norm")``."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.helpers.processes", *SLOW_TO_IMPORT])
        before = dict(os.environ)
        os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        forkserver.ensure_running()
        os.environ.clear()
        os.environ |= before

    def __call__(self, folder: Path, processes: int = 1, **settings: object) -> Outcome:
        """Run to the end."""
        ranks = self.start(folder, processes, **settings)
        for process in ranks:
            process.join(TIMEOUT)
        return self.outcome(folder, ranks)

    def start(self, folder: Path, processes: int = 1, **settings: object) -> list[BaseProcess]:
        """Start a run and return its processes."""
        pairs = [f"{name}={value}" for name, value in settings.items()]
        port = _free_port()
        ranks = []
        for rank in range(processes):
            environment = {} if processes == 1 else _environment(rank, processes, port)
            log = _log(folder, rank)
            ranks.append(self.context.Process(target=_rank, args=(log, environment, str(folder), *pairs)))
            ranks[-1].start()
        return ranks

    def outcome(self, folder: Path, ranks: list[BaseProcess]) -> Outcome:
        """What came of a run whose processes have ended."""
        hanging = [process for process in ranks if process.exitcode is None]
        for process in hanging:
            process.kill()
        output = "".join(_log(folder, rank).read_text() for rank in range(len(ranks)))
        assert not hanging, f"{len(hanging)} of {len(ranks)} processes did not end. {output}"
        return Outcome([process.exitcode for process in ranks], output)


def _rank(log: Path, environment: dict[str, str], *arguments: str) -> None:
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ |= environment
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was started by a command
    toy_recipe.main(*arguments)


def _log(folder: Path, rank: int) -> Path:
    return folder.with_name(f"{folder.name}.{rank}.log")


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()
