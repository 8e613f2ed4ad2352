"""How threads wait for each other, which is settled when torch is imported and must be chosen before."""

import os

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_without_spinning() -> None:
    """Let OpenMP's threads sleep instead of spin where a thread is late, unless the user has chosen how they wait.

    On a machine with other work a thread that spins keeps the core from the one that it waits for. GNU's OpenMP, which
    the wheels of torch carry on Linux, spins 300,000 times by default. A thousand times costs nothing on an idle
    machine, where sleeping at once would; see benchmarks/RESULTS.md.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
