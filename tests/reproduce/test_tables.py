import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskrobust import cli
from taskrobust.commands import reproduce_figure3 as figure3
from taskrobust.commands import reproduce_table1 as table1
from taskrobust.commands import reproduce_table2 as table2
from taskrobust.commands import reproduce_table3 as table3
from taskrobust.reproduce.plan import Part, Plan

COMMANDS: dict[str, Callable[..., None]] = {
    "table1": table1.reproduce_table1,
    "table2": table2.reproduce_table2,
    "table3": table3.reproduce_table3,
    "figure3": figure3.reproduce_figure3,
}


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that would run."""
    made: list[Plan] = []
    for module in (table1, table2, table3, figure3):
        monkeypatch.setattr(module, "carry_out", lambda plan, jobs, dry_run: made.append(plan))
    return made


TRAINING = ("pretrain-bert", "pretrain-mae", "finetune-glue", "finetune-vision")


def options(part: Part, more: tuple[str, ...] = ()) -> Any:
    """The options of a part, parsed as its command parses them."""
    name, *words = (*part.command, *more)
    return cli.options_of(name).parse(words)


@pytest.mark.parametrize("scale", ["demo", "small", "paper"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_part_is_a_valid_command(name: str, scale: str, plans: list[Plan], tmp_path: Path) -> None:
    more = {} if name == "table3" else {"weightings": ["average", "minimax"]}
    COMMANDS[name](scale, tmp_path, dry_run=True, **more)
    for part in plans[0].parts:
        read = options(part)
        if part.finished:
            assert all(file.is_relative_to(Path(str(read.output))) for file in part.finished)
        for earlier in part.needs + part.after:
            assert earlier in [other.name for other in plans[0].parts[: plans[0].parts.index(part)]]


def test_figure_is_a_part_of_table_two(plans: list[Plan], tmp_path: Path) -> None:
    table2.reproduce_table2("demo", tmp_path)
    figure3.reproduce_figure3("demo", tmp_path)
    table, figure = ({part.name: part.command for part in plan.parts} for plan in plans)
    assert figure.items() <= table.items()


def test_each_seed_and_weighting_is_fine_tuned_on_each_task(plans: list[Plan], tmp_path: Path) -> None:
    table2.reproduce_table2("demo", tmp_path, weightings=["average", "minimax-initial"], seeds=[0, 7])
    names = {part.name for part in plans[0].parts}
    expected = {
        f"{weighting}/seed{seed}/{part}"
        for weighting in ("average", "minimax-initial")
        for seed in (0, 7)
        for part in ("pretrain", "classification", "semseg", "depth")
    }
    assert names == expected | {"cost", "comparison", "figure3"}


@pytest.mark.parametrize("processes", [1, 2, 8, 16])
def test_steps_of_the_paper_have_the_same_samples_on_any_number_of_processes(
    processes: int, plans: list[Plan], tmp_path: Path
) -> None:
    table1.reproduce_table1("paper", tmp_path, weightings=["average"], processes=processes)
    table2.reproduce_table2("paper", tmp_path, weightings=["average"], processes=processes)
    samples = {}
    for part in (part for plan in plans for part in plan.parts if part.command[0] in TRAINING):
        loop = options(part, part.batches).loop
        samples[part.command[0], part.name.split("/")[-1]] = loop.batch_size * loop.accumulation * processes
    assert samples == {
        ("pretrain-bert", "pretrain"): 256,
        ("finetune-glue", "glue"): 32,
        ("pretrain-mae", "pretrain"): 2048,
        ("finetune-vision", "classification"): 1024,
        ("finetune-vision", "semseg"): 64,
        ("finetune-vision", "depth"): 128,
    }


def test_samples_that_cannot_be_divided_evenly_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"^Expected a number of processes that divides the 256 samples .*paper-base.yaml evenly, got 3",
    ):
        table1.reproduce_table1("paper", tmp_path, processes=3)


def test_unknown_weighting_is_an_error_that_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Expected weightings among \['average', .*'uncertainty'\], got 'best'.$"):
        table1.reproduce_table1("demo", tmp_path, weightings=["best"])


def test_dry_run_prints_commands_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "plan"
    cli.run("reproduce table1", {"scale": "small", "output": str(output), "dry_run": True})
    printed = capsys.readouterr().out
    assert "7 of 7 parts to do" in printed
    assert sum(line.startswith("taskrobust pretrain-bert --config ") for line in printed.splitlines()) == 3
    assert not output.exists()


def test_costs_of_the_weightings_are_measured(tmp_path: Path) -> None:
    small = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "visible": 8}
    small |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    settings = {"output": str(tmp_path), "mae": small, "batch_size": 2, "steps": 2}
    cli.run("step-cost", settings | {"device": {"device": "cpu"}})
    costs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/cost.json")}
    assert set(costs) == {"average", "uncertainty", "gradnorm", "dwa", "minimax"}
    flops = {name: cost["flops_per_step"] for name, cost in costs.items()}
    assert flops["average"] == flops["minimax"] == flops["dwa"] == flops["uncertainty"] < flops["gradnorm"]
    assert all(cost["seconds_per_step"] > 0 for cost in costs.values())
    assert (tmp_path / "table.md").read_text().count("\n") == 7
