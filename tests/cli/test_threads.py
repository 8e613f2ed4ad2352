import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def settings_of_openmp(**environment: str) -> str:
    """What OpenMP says about itself when a command loads it."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-m", "taskrobust", "env"]
    environment = ours | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    return result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU's OpenMP")
def test_threads_of_commands_sleep_instead_of_spin() -> None:
    shown = settings_of_openmp()
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown
    assert "GOMP_SPINCOUNT = '1000'" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU's OpenMP")
def test_your_own_choice_of_waiting_comes_first() -> None:
    shown = settings_of_openmp(OMP_WAIT_POLICY="ACTIVE")
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in shown
    assert "GOMP_SPINCOUNT = '1000'" not in shown
