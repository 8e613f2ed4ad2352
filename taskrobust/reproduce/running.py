import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from taskrobust.reproduce.plan import Part, Plan

_LAST_LINES = 12
_PATIENCE = 60.0
"""Seconds that a stopped command has to write a checkpoint."""

_CHILD = """
import os, runpy, signal, sys, threading

def end_with_parent():
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGTERM)

threading.Thread(target=end_with_parent, daemon=True).start()
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module as ``python -m`` does, until the pipe to its parent closes, even if the parent is killed."""


class Run:
    """Runs the unfinished parts of a plan, several in parallel. A failed part stops only the parts that need it.

    Args:
        plan: The plan.
        jobs: Number of parts that run in parallel. They share the cores evenly.
        console: Console for progress messages.
        watch: Called several times per second while parts run.
    """

    def __init__(
        self, plan: Plan, jobs: int, console: Console | None = None, watch: Callable[[], None] = lambda: None
    ) -> None:
        self.plan = plan
        self.jobs = jobs
        self.console = console or Console()
        self.watch = watch
        self.failed: list[Part] = []
        self.finished = {part.name for part in plan.parts if part.is_finished}
        self._running: dict[subprocess.Popen[bytes], tuple[Part, float]] = {}

    def to_the_end(self) -> None:
        """Run all parts. If this process is interrupted, stop the running ones, which resume the next time.

        Raises:
            RuntimeError: If a part failed.
        """
        self.plan.save()
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            while self._start() or self._running:
                self._wait()
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)
        if self.failed:
            missing = len(self.plan.parts) - len(self.finished)
            logs = "\n".join(f"  {part.name}: {self.plan.log(part)}" for part in self.failed)
            raise RuntimeError(
                f"{len(self.failed)} of {len(self.plan.parts)} parts failed, {missing} are not finished:\n"
                f"{logs}\nFinished parts are kept. Fix the cause, then run the same command again."
            )

    def _start(self) -> bool:
        """Start all parts that can start; return whether any did."""
        started = False
        for part in self.plan.parts:
            if len(self._running) < self.jobs and self._is_ready(part):
                self._running[self._process(part)] = (part, time.perf_counter())
                started = True
        return started

    def _is_ready(self, part: Part) -> bool:
        gone = self.finished | {failed.name for failed in self.failed} | self._blocked()
        running = {running.name for running, _ in self._running.values()}
        done_with = part.name in gone | running
        return not done_with and self.finished >= set(part.needs) and gone >= set(part.after)

    def _blocked(self) -> set[str]:
        """Failed parts, and parts that need one of them."""
        lost = {part.name for part in self.failed}
        for part in self.plan.parts:  # each comes after those that it needs
            if lost & set(part.needs):
                lost.add(part.name)
        return lost

    def _process(self, part: Part) -> subprocess.Popen[bytes]:
        log = self.plan.log(part)
        log.parent.mkdir(parents=True, exist_ok=True)
        module = ["taskrobust"]
        if part.processes > 1:
            launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(part.processes)]
            module = [*launcher, "-m", *module]
        threads = max(1, available_cores() // (self.jobs * part.processes))
        environment = {"OMP_NUM_THREADS": str(threads)} | dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
        self.console.print(f"{part.name} starts.", highlight=False)
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-c", _CHILD, *module, *part.command, *part.batches],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=environment,
                process_group=0,
            )

    def _wait(self) -> None:
        """Wait until a part ends."""
        while all(process.poll() is None for process in self._running):
            self.watch()
            time.sleep(0.2)
        self.watch()
        for process in [process for process in self._running if process.poll() is not None]:
            part, started = self._running.pop(process)
            _close(process)
            seconds = time.perf_counter() - started
            if process.returncode == 0 and (part.is_finished or not part.finished):
                self.finished.add(part.name)
                self.plan.took(part, seconds)
                self._say(f"{part.name} is finished, {seconds:.0f} s.")
            else:
                self.failed.append(part)
                self._say(f"{part.name} FAILED with code {process.returncode}:")
                self._say(_last_lines(self.plan.log(part)))

    def _say(self, text: str) -> None:
        done = f"\\[{len(self.finished)}/{len(self.plan.parts)}] "
        self.console.print(done, end="", highlight=False)
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _stop(self) -> None:
        for process in self._running:
            os.killpg(process.pid, signal.SIGTERM)
        for process, (part, _) in self._running.items():
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            _close(process)
            self._say(f"{part.name} was stopped. The same command resumes it.")


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe that tells a child that its parent is alive."""
    assert process.stdin is not None
    process.stdin.close()


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _last_lines(log: Path) -> str:
    """The end of a log, indented."""
    lines = log.read_text(errors="replace").rstrip().splitlines()[-_LAST_LINES:]
    return "\n".join(f"    {line}" for line in lines)


def carry_out(plan: Plan, jobs: int, dry_run: bool) -> None:
    """Run a plan, or print it with its commands and estimated time.

    Args:
        plan: The plan.
        jobs: Number of parts that run in parallel.
        dry_run: Whether to print only.

    Raises:
        ValueError: If an environment variable is not set.
        RuntimeError: If a part failed.
    """
    unset = plan.unset_variables()
    if dry_run:
        console = Console()
        console.print(plan.table(jobs))
        lines = [part.shell() for part in plan.parts]
        lines += [f"Set {name} first: {by} names it." for name, by in unset.items()]
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    if unset:
        name, by = next(iter(unset.items()))
        raise ValueError(f"Expected the environment variable {name} to be set, as {by} names it.")
    Run(plan, jobs).to_the_end()
