import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

import taskrobust
from taskrobust.weighting import strategies
from tests.helpers.two_processes import forms_of

SCRIPT = Path(__file__).parent / "helpers" / "two_processes.py"
ROOT = Path(taskrobust.__file__).parents[1]
REFERENCES = ["fixed", "model", "power law"]
STRATEGIES = [f"{name} {form}" for name, strategy in strategies().items() for form in forms_of(strategy)]

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What went wrong in each scenario, None if nothing did."""
    file = tmp_path_factory.mktemp("distributed") / "results.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    run = subprocess.run([*torchrun, SCRIPT, file], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(file.read_text())


def test_the_mean_of_the_ranks_means_has_another_gradient(results: dict[str, str | None]) -> None:
    assert results["means by rank"] is None


def test_a_loss_that_is_not_finite_on_one_rank_raises_on_all(results: dict[str, str | None]) -> None:
    assert results["non-finite on one rank"] is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradient_under_ddp_is_that_of_one_process_on_the_union_batch(
    results: dict[str, str | None], strategy: str
) -> None:
    assert results[f"ddp {strategy}"] is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("window", ["counts", "losses"])
def test_gradient_of_an_accumulation_window_under_ddp_is_that_of_the_union_batch(
    results: dict[str, str | None], strategy: str, window: str
) -> None:
    assert results[f"window of {window} {strategy}"] is None


@pytest.mark.parametrize("strategy", strategies())
@pytest.mark.parametrize("reference", REFERENCES)
def test_weights_of_excess_risks_under_ddp_are_those_of_one_process_on_the_union_batch(
    results: dict[str, str | None], strategy: str, reference: str
) -> None:
    for scenario in ("ddp", "window of counts", "window of losses"):
        assert results[f"{scenario} {strategy} {reference}"] is None


@pytest.mark.parametrize("strategy", ["SoftmaxMinimax", "Uncertainty", "GradNorm"])
def test_gradient_under_fsdp_is_that_of_one_process_on_the_union_batch(
    results: dict[str, str | None], strategy: str
) -> None:
    assert results[f"fsdp {strategy}"] is None


@pytest.mark.parametrize(
    "scenario",
    [
        "evaluation is local",
        "evaluation of uneven ranks",
        "window that is not finite on one rank",
        "names in another order",
        "copies with a process group",
    ],
)
def test_on_two_ranks(results: dict[str, str | None], scenario: str) -> None:
    assert results[scenario] is None


@pytest.mark.parametrize("strategy", ["SoftmaxMinimax", "Uncertainty", "GradNorm"])
@pytest.mark.parametrize("two_passes", [False, True])
def test_ranks_may_have_windows_of_different_lengths(
    results: dict[str, str | None], strategy: str, two_passes: bool
) -> None:
    assert results[f"uneven windows {two_passes} {strategy}"] is None
