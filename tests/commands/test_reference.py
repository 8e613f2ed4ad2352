import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from taskrobust import FixedReference
from taskrobust.cli import run


def test_the_reference_of_a_task_is_the_smallest_risk_that_a_run_ends_with(
    write_pretraining: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        write_pretraining("nouns", {"noun": 5.0, "verb": None}),
        write_pretraining("verbs", {"noun": 7.0, "verb": 2.0}),
    ]
    file = tmp_path / "new" / "reference.json"

    found = run("reference", {"runs": [str(folder) for folder in runs], "output": str(file)})

    assert found == {"noun": 5.0, "verb": 2.0}
    assert json.loads(file.read_text())["runs"] == {"noun": str(runs[0]), "verb": str(runs[1])}
    assert re.search(rf"^\| verb \| 2.0000 \| {re.escape(str(runs[1]))} \|$", capsys.readouterr().out, re.MULTILINE)
    reference = FixedReference(file).setup(["verb", "noun"])
    assert reference.risks(torch.device("cpu")).tolist() == [2.0, 5.0]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^Expected a run folder with metrics.jsonl, got {re.escape(str(tmp_path))}"):
        run("reference", {"runs": [str(tmp_path)], "output": str(tmp_path / "reference.json")})
