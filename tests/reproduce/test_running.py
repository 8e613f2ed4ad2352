import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from taskrobust.reproduce.plan import Part, Plan
from taskrobust.reproduce.running import Run, carry_out

# Parts run ``python -m taskrobust WORDS``. A stand-in package of that name performs the action that the words name.
STAND_IN = """
import pathlib, sys, time
action, folder, *more = sys.argv[1:]
folder = pathlib.Path(folder)
folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent / "order.txt", "a") as file:
    file.write(folder.name + "\\n")
if action == "fail":
    sys.exit(f"error: {folder.name} cannot do it.")
if action == "slow":
    time.sleep(60)
(folder / "done").touch()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "package/taskrobust"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(package.parent)  # python -m searches it first
    return tmp_path / "work"


def part(folder: Path, name: str, action: str = "do", **more: tuple[str, ...]) -> Part:
    return Part(
        name=name, command=(action, str(folder / name)), finished=(folder / name / "done",), minutes=2.0, **more
    )


def order(folder: Path) -> list[str]:
    return (folder / "order.txt").read_text().split()


def test_parts_run_in_order_and_finished_ones_do_not_run_again(stand_in: Path) -> None:
    parts = [part(stand_in, "a"), part(stand_in, "b", needs=("a",)), part(stand_in, "c", needs=("a", "b"))]
    Run(Plan(stand_in, parts[:2]), jobs=2).to_the_end()
    Run(Plan(stand_in, parts), jobs=2).to_the_end()
    assert order(stand_in) == ["a", "b", "c"]


def test_failed_part_stops_only_the_parts_that_need_it(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        part(stand_in, "bad", "fail"),
        part(stand_in, "on-bad", needs=("bad",)),
        part(stand_in, "on-that", needs=("on-bad",)),
        part(stand_in, "good"),
        part(stand_in, "table", after=("on-that", "good")),
    ]
    message = r"^1 of 5 parts failed, 3 are not finished:\n  bad: .*logs/bad.log\nFinished parts are kept"
    with pytest.raises(RuntimeError, match=message):
        Run(Plan(stand_in, parts), jobs=2).to_the_end()
    assert sorted(order(stand_in)) == ["bad", "good", "table"]
    assert order(stand_in)[-1] == "table"
    assert "error: bad cannot do it." in capsys.readouterr().out


def test_part_without_its_file_has_failed(stand_in: Path) -> None:
    lost = Part(name="lost", command=("do", str(stand_in / "lost")), finished=(stand_in / "elsewhere",))
    with pytest.raises(RuntimeError, match=r"^1 of 1 parts failed"):
        Run(Plan(stand_in, [lost]), jobs=1).to_the_end()


def test_part_without_a_file_runs_every_time(stand_in: Path) -> None:
    always = Part(name="table", command=("do", str(stand_in / "table")), finished=())
    for _ in range(2):
        Run(Plan(stand_in, [always]), jobs=1).to_the_end()
    assert order(stand_in) == ["table", "table"]


def test_two_parts_run_in_parallel(stand_in: Path) -> None:
    meet = "import pathlib, sys, time\nfolder = pathlib.Path(sys.argv[2])\nfolder.mkdir(parents=True)\n"
    meet += "while len(list(folder.parent.glob('[ab]'))) < 2: time.sleep(0.05)\n(folder / 'done').touch()\n"
    Path("taskrobust/__main__.py").write_text(meet)
    Run(Plan(stand_in, [part(stand_in, "a"), part(stand_in, "b")]), jobs=2).to_the_end()


def test_another_command_of_the_same_name_is_an_error(stand_in: Path) -> None:
    Plan(stand_in, [part(stand_in, "a")]).save()
    with pytest.raises(ValueError, match=r"its part a is\n  do .*\nthere and\n  fail .*\nhere. Choose"):
        Plan(stand_in, [part(stand_in, "a", "fail")])
    Plan(stand_in, [part(stand_in, "b")]).save()
    assert set(json.loads((stand_in / "plan.json").read_text())) == {"a", "b"}


def test_edited_configuration_is_another_command(stand_in: Path, tmp_path: Path) -> None:
    config = tmp_path / "demo.yaml"
    made = Part(name="a", command=("do", "--config", str(config)), finished=(stand_in / "done",))
    config.write_text("steps: 1")
    Plan(stand_in, [made]).save()
    moved = tmp_path / "elsewhere/demo.yaml"
    moved.parent.mkdir()
    moved.write_text("steps: 1")
    Plan(stand_in, [replace(made, command=("do", "--config", str(moved)), processes=2)])
    config.write_text("steps: 2")
    with pytest.raises(ValueError, match=r"do --config 'demo.yaml#[0-9a-f]{8}'\nthere and"):
        Plan(stand_in, [made])


def test_table_of_the_plan_has_the_unfinished_parts_and_their_time(stand_in: Path) -> None:
    unknown = Part(name="c", command=("do", str(stand_in / "c")), finished=(stand_in / "c/done",))
    plan = Plan(stand_in, [part(stand_in, "a"), part(stand_in, "b"), part(stand_in, "d"), unknown])
    Run(Plan(stand_in, plan.parts[:1]), jobs=1).to_the_end()
    caption = Plan(stand_in, plan.parts).table(jobs=2).caption
    assert caption == ("3 of 4 parts to do: about 2 minutes with 2 in parallel and an unknown time for 1 of them.")
    caption = Plan(stand_in, [unknown]).table(jobs=2).caption
    assert caption == "1 of 1 parts to do: an unknown time for 1 of them."


def test_nothing_starts_while_an_environment_variable_is_unset(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TASKROBUST_DATA", raising=False)
    config = tmp_path / "small.yaml"
    config.write_text("glue: $TASKROBUST_DATA/glue")
    parts = [part(stand_in, "a"), Part(name="b", command=("do", "--config", str(config)), finished=(stand_in / "b",))]
    with pytest.raises(ValueError, match=f"^Expected the environment variable TASKROBUST_DATA to be set, as {config}"):
        carry_out(Plan(stand_in, parts), jobs=1, dry_run=False)
    assert not stand_in.exists()
    carry_out(Plan(stand_in, parts), jobs=1, dry_run=True)
    assert f"Set TASKROBUST_DATA first: {config} names it." in capsys.readouterr().out
    (stand_in / "b").mkdir(parents=True)  # finished parts need no variables
    carry_out(Plan(stand_in, parts), jobs=1, dry_run=False)


def test_several_processes_are_started_by_torchrun() -> None:
    spread = Part(name="a", command=("pretrain-mae", "--output", "a b"), finished=(), processes=8)
    assert spread.shell() == "torchrun --nproc-per-node 8 -m taskrobust pretrain-mae --output 'a b'"


def test_interrupted_plan_stops_its_parts(stand_in: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom taskrobust.reproduce.plan import Part, Plan\n"
        "from taskrobust.reproduce.running import Run\n"
        f"work = Path({str(stand_in)!r})\n"
        "part = Part(name='a', command=('slow', str(work / 'a')), finished=(work / 'a/done',))\n"
        f"import os; os.chdir({os.getcwd()!r}); os.environ['PYTHONPATH'] = {os.getcwd()!r}\n"
        "Run(Plan(work, [part]), 1).to_the_end()\n"
    )
    source = str(Path(sys.modules["taskrobust"].__file__ or "").parents[1])
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": source}, cwd=tmp_path)
    while not (stand_in / "order.txt").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    running = subprocess.run(["pgrep", "-f", str(stand_in / "a")], capture_output=True, check=False).stdout
    assert running == b""
