"""The commands, as a user runs them: the command line, files and signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import BertForPreTraining, BertForSequenceClassification

from taskrobust.cli import COMMANDS, options_of, run
from taskrobust.nlp.tagging.tagset import CLASSES
from taskrobust.training.metrics import CLOCKED

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of a tiny model on a tiny generated corpus, without its output folder."""
    folder = tmp_path_factory.mktemp("corpora")
    return {
        "corpus": {
            "train": str(folder / "train"),
            "held_out": str(folder / "held-out"),
            "train_source": "grammar",
            "held_out_source": "grammar",
            "documents": 200,
            "held_out_documents": 40,
            "vocab_size": 400,
            "sequence_length": 32,
        },
        "bert": {"layers": 1, "hidden": 32, "heads": 2, "dropout": 0.1},
        "loop": {"steps": 8, "batch_size": 8, "log_every": 2, "eval_every": 4, "checkpoint_every": 4},
        "optim": {"lr": 1e-3},
        "device": {"precision": "fp32"},
    }


@pytest.fixture
def config(settings: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings | {"output": str(tmp_path / "run")}))
    return path


def command(*arguments: object, processes: int = 1) -> list[str]:
    python = [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run"]
    launch = [] if processes == 1 else ["--standalone", "--nproc-per-node", str(processes)]
    return [*python, *launch, "-m", "taskrobust", *map(str, arguments)]


def call(*arguments: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*arguments, processes=processes), capture_output=True, text=True, env=environment, timeout=300
    )


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKED} for line in lines]


def test_help_lists_the_commands() -> None:
    result = call("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in COMMANDS)


def test_help_of_a_command_comes_from_the_docstring() -> None:
    result = call("pretrain-bert", "--help")
    assert result.returncode == 0
    assert "weight of next sentence prediction" in " ".join(result.stdout.split())
    assert "--loop.batch_size" in result.stdout


def test_unknown_command_is_named() -> None:
    result = call("pretrain-bart")
    assert result.returncode != 0
    assert "got 'pretrain-bart'" in result.stderr


def test_installed_script_finds_a_strategy_in_the_current_folder(config: Path, tmp_path: Path) -> None:
    example = (ROOT / "examples/own_strategy.py").read_text()
    (tmp_path / "my_module.py").write_text(example.split('if __name__ == "__main__"')[0])
    script = Path(sys.executable).with_name("taskrobust")
    options = ["pretrain-bert", "--config", config, "--weighting", "my_module.WorstK", "--weighting.k", "3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([script, *options], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    weights = [line["weights"] for line in metrics(tmp_path / "run") if "weights" in line]
    assert weights
    assert all(min(step.values()) == 0 for step in weights)


def test_callback_of_your_own_is_called(config: Path, tmp_path: Path) -> None:
    (tmp_path / "my_callbacks.py").write_text(
        "from taskrobust.training.callbacks import Callback\n\n"
        "class Count(Callback):\n"
        "    def __init__(self, every: int = 1) -> None:\n"
        "        self.every = every\n\n"
        "    def on_step(self, trainer):\n"
        "        if trainer.progress.step % self.every == 0:\n"
        "            trainer.say(f'step {trainer.progress.step} is over')\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command("pretrain-bert", "--config", config, "--callbacks", "my_callbacks.Count")
    result = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(" is over") == 8
    settings = {"callbacks": [{"class_path": "my_callbacks.Count", "init_args": {"every": 4}}], "loop": {"steps": 12}}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"output": str(tmp_path / "another")}))
    (tmp_path / "callbacks.yaml").write_text(yaml.safe_dump(settings))
    words = command("pretrain-bert", "--config", config, "--config", "callbacks.yaml")
    result = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if "is over" in line] == [
        "step 4 is over",
        "step 8 is over",
        "step 12 is over",
    ]


def test_a_call_from_python_needs_no_settings_in_plain_values(settings: dict[str, Any], tmp_path: Path) -> None:
    from taskrobust.commands.pretrain_bert import BertShape, pretrain_bert
    from taskrobust.nlp.corpus.build import CorpusConfig
    from taskrobust.training.config import DeviceConfig, LoopConfig, RunConfig
    from taskrobust.weighting import SoftmaxMinimax

    corpus = CorpusConfig(
        **{name: Path(v) if name in ("train", "held_out") else v for name, v in settings["corpus"].items()}
    )

    def train(alpha: float, steps: int) -> float:
        run = RunConfig(loop=LoopConfig(steps=steps, batch_size=8), device=DeviceConfig(precision="fp32"))
        shape = BertShape(**settings["bert"])
        return pretrain_bert(corpus, tmp_path / "run", weighting=SoftmaxMinimax(alpha=alpha), bert=shape, run=run).worst

    first = train(alpha=2.0, steps=4)
    recorded = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert recorded["weighting"]["init_args"]["alpha"] == 2.0
    assert recorded["loop"]["steps"] == 4
    assert train(alpha=2.0, steps=4) == first
    with pytest.raises(ValueError, match=r"weighting\.init_args\.alpha is 2\.0 there and 1\.0 here"):
        train(alpha=1.0, steps=4)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("loop.steps", "0", "Expected a value of at least 1 for loop.steps, got 0."),
        ("optim.ema_decay", "7", "Expected a value of at least 0 and below 1 for optim.ema_decay, got 7.0."),
        ("nsp_weight", "-1", "Expected a value of at least 0 for nsp_weight, got -1.0."),
        ("held_out_pairs", "0", "Expected a value of at least 1 for held_out_pairs, got 0."),
        ("bert.dropout", ".nan", "Expected a value of at least 0 and below 1 for bert.dropout, got nan."),
    ],
)
def test_a_number_out_of_range_is_one_line(option: str, value: str, message: str, config: Path, tmp_path: Path) -> None:
    result = call("pretrain-bert", "--config", config, f"--{option}={value}")
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == f"error: {message}"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["weighting", "risk", "masking"])
def test_a_configuration_cannot_call_functions(option: str, config: Path, tmp_path: Path) -> None:
    attack = {option: {"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/exploded"}}}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | attack))
    result = call("pretrain-bert", "--config", config)
    assert result.returncode == 2
    assert f"for {option}, got os.system, which is <built-in function system>." in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("option", ["weighting", "callbacks"])
def test_the_configuration_of_a_run_folder_imports_nothing_unless_trusted(
    option: str, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "evilmod.py").write_text(
        "from pathlib import Path\nfrom taskrobust import Uniform\nfrom taskrobust.training.callbacks import Callback\n"
        "Path('exploded').touch()\nclass W(Uniform):\n    pass\nclass C(Callback):\n    pass\n"
    )
    settings = yaml.safe_load(config.read_text())
    settings |= {"weighting": "evilmod.W"} if option == "weighting" else {"callbacks": [{"class_path": "evilmod.C"}]}
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "shared/run.json").write_text("{}")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command("pretrain-bert", "--config", "shared/config.yaml")
    result = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 2
    assert "Expected classes of taskrobust in shared/config.yaml, got one of the module 'evilmod'" in result.stderr
    assert not (tmp_path / "exploded").exists()
    result = subprocess.run([*words, "--trust"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "exploded").exists()


def test_unknown_config_key_is_named(config: Path) -> None:
    config.write_text(config.read_text() + "leraning_rate: 3\n")
    result = call("pretrain-bert", "--config", config)
    assert result.returncode != 0
    assert "leraning_rate" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_corpus_says_what_to_run(tmp_path: Path) -> None:
    result = call(
        "pretrain-bert", "--corpus.train", tmp_path / "no", "--corpus.held_out", tmp_path, "--output", tmp_path
    )
    assert result.returncode == 1
    assert "taskrobust annotate" in result.stderr
    assert "Traceback" not in result.stderr


def test_option_names_may_have_dashes(config: Path) -> None:
    result = call("pretrain-bert", "--config", config, "--loop.batch-size=3", "--held-out-pairs", 7, "--print_config")
    printed = yaml.safe_load(result.stdout)
    assert (printed["loop"]["batch_size"], printed["held_out_pairs"]) == (3, 7)


def test_words_before_options_are_of_the_first_option(tmp_path: Path) -> None:
    result = call("compare", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "--output", tmp_path)
    assert result.returncode == 1
    assert f"there is no folder {tmp_path / 'a'}" in result.stderr


def test_switch_alone_is_on(tmp_path: Path) -> None:
    output = tmp_path / "plan"
    assert "1 of 1 parts to do" in call("reproduce", "table3", "--dry-run", "--output", output).stdout
    assert not output.exists()


def test_list_of_one_is_a_list(tmp_path: Path) -> None:
    output = ["--dry-run", "--output", tmp_path / "plan"]
    result = call("reproduce", "table1", "--weightings", "average", "--seeds", 1, *output)
    assert "average/seed1/pretr" in "".join(result.stdout.split()), result.stderr


def test_env_names_versions() -> None:
    assert re.search(r"^torch \d", call("env").stdout, re.MULTILINE)


def test_killed_run_goes_on_to_the_same_metrics(settings: dict[str, Any], config: Path, tmp_path: Path) -> None:
    loop = ["--loop.steps", 30, "--loop.checkpoint_every", 3, "--loop.workers", 1]
    run(
        "pretrain-bert",
        settings | {"output": str(tmp_path / "whole"), "loop": settings["loop"] | {"steps": 30, "checkpoint_every": 3}},
    )
    arguments = ["pretrain-bert", "--config", config, *loop]
    process = subprocess.Popen(
        command(*arguments),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/checkpoints/step-00000006").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run/model").exists()
    result = call(*arguments)
    assert result.returncode == 0, result.stderr
    assert "Resuming from step" in result.stdout
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_give_the_curve_of_one_with_twice_the_batch(
    parallel: str, settings: dict[str, Any], config: Path, tmp_path: Path
) -> None:
    same = ["--bert.dropout", 0.0, "--loop.log_every", 1, "--loop.steps", 4, "--loop.eval_every", 2]
    one = call("pretrain-bert", "--config", config, *same, "--output", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    halves = ["--loop.batch_size", 4, "--device.parallel", parallel]
    result = call("pretrain-bert", "--config", config, *same, "--output", tmp_path / "two", *halves, processes=2)
    assert result.returncode == 0, result.stderr
    BertForPreTraining.from_pretrained(tmp_path / "two/model")
    for ours, theirs in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert ours["risks"].keys() == theirs["risks"].keys()
        for task, risk in ours["risks"].items():  # None for a class that was absent
            assert risk == theirs["risks"][task] or risk == pytest.approx(theirs["risks"][task], rel=1e-5)
        if ours["split"] == "train":
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["weights"] == pytest.approx(theirs["weights"], rel=1e-5)


@pytest.mark.parametrize("overlay", sorted(CONFIGS.glob("weighting/*.yaml")), ids=lambda path: path.stem)
def test_every_weighting_config_trains(overlay: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    evaluation = run(
        "pretrain-bert", settings | yaml.safe_load(overlay.read_text()) | {"output": str(tmp_path / "run")}
    )
    assert set(evaluation.risks) >= {"noun", "verb", "nsp"}
    assert evaluation.worst == evaluation.risks[evaluation.worst_task]


@pytest.mark.parametrize(
    "masking",
    [{"grouping": "sequence"}, {"grouping": "copies"}, {"stratified": True}, {"unpadded": True}, {"fixed_size": True}],
    ids=str,
)
def test_every_masking_trains(masking: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    masks = {"class_path": "taskrobust.nlp.masking.Masking", "init_args": masking}
    run("pretrain-bert", settings | {"masking": masks, "output": str(tmp_path / "run")})
    assert len(metrics(tmp_path / "run")) == 6


@pytest.mark.parametrize("window_weights", ["running", "two_pass"])
def test_accumulation_trains(window_weights: str, settings: dict[str, Any], tmp_path: Path) -> None:
    loop = settings["loop"] | {"accumulation": 2, "batch_size": 4, "window_weights": window_weights}
    run("pretrain-bert", settings | {"loop": loop, "output": str(tmp_path / "run")})
    assert metrics(tmp_path / "run")[-1]["step"] == 8


def test_models_of_a_run_load_as_plain_bert(settings: dict[str, Any], tmp_path: Path) -> None:
    run("pretrain-bert", settings | {"output": str(tmp_path / "run")})
    for folder in ("model", "best"):
        BertForPreTraining.from_pretrained(tmp_path / "run" / folder)
        BertForSequenceClassification.from_pretrained(tmp_path / "run" / folder)
        assert json.loads((tmp_path / "run" / folder / "evaluation.json").read_text())["worst"] > 0


def test_run_starts_from_another_runs_model(settings: dict[str, Any], tmp_path: Path) -> None:
    first = run("pretrain-bert", settings | {"output": str(tmp_path / "first")})
    loop = settings["loop"] | {"steps": 1}
    small_step = {"loop": loop, "optim": {"lr": 1e-9}, "init_from": str(tmp_path / "first/model")}
    second = run("pretrain-bert", settings | small_step | {"output": str(tmp_path / "second")})
    assert second.risks == pytest.approx(first.risks, rel=1e-4)


def test_excess_over_a_frozen_model_is_zero_for_the_same_model(settings: dict[str, Any], tmp_path: Path) -> None:
    first = run("pretrain-bert", settings | {"output": str(tmp_path / "first")})
    risk = {"class_path": "RiskEstimator", "init_args": {"reference": "ModelReference"}}
    start = {"init_from": str(tmp_path / "first/model"), "reference_model": str(tmp_path / "first"), "risk": risk}
    small_step = {"loop": settings["loop"] | {"steps": 1}, "optim": {"lr": 1e-9}, "bert": {"dropout": 0.0}}
    settings = settings | start | small_step | {"output": str(tmp_path / "second")}
    second = run("pretrain-bert", settings)
    assert second.risks == pytest.approx(first.risks, rel=1e-4)
    assert second.worst == pytest.approx(0, abs=1e-3)
    excess = metrics(tmp_path / "second")[0]["excess"]
    assert list(excess) == list(CLASSES)
    assert all(value is None or abs(value) < 1e-3 for value in excess.values())  # None for a class that was absent


def test_corpora_of_different_vocabularies_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    other = {"train": str(tmp_path / "other"), "held_out": str(tmp_path / "other-held-out"), "vocab_size": 300}
    run("pretrain-bert", settings | {"corpus": settings["corpus"] | other, "output": str(tmp_path / "other-run")})
    mixed = {"train": settings["corpus"]["train"], "held_out": other["held_out"]}
    with pytest.raises(ValueError, match=r"other-held-out.* to have the vocabulary of .*train, got another one"):
        run("pretrain-bert", settings | {"corpus": mixed, "output": str(tmp_path / "mixed")})


def test_config_of_a_run_runs_again_as_it_is(config: Path, tmp_path: Path) -> None:
    run("pretrain-bert", yaml.safe_load(config.read_text()))
    before = metrics(tmp_path / "run")
    result = call("pretrain-bert", "--config", tmp_path / "run/config.yaml", "--output", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    assert metrics(tmp_path / "again") == before


def test_run_folder_of_another_config_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    run("pretrain-bert", settings | {"output": str(tmp_path / "run")})
    with pytest.raises(ValueError, match=r"optim\.lr is 0\.001 there and 0\.002 here"):
        run("pretrain-bert", settings | {"output": str(tmp_path / "run"), "optim": {"lr": 2e-3}})


def test_run_says_what_it_will_do_and_where_the_model_is(config: Path, tmp_path: Path) -> None:
    result = call("pretrain-bert", "--config", config)
    assert result.returncode == 0, result.stderr
    for line in (
        r"  device +CPU, fp32 \(as set\), 1 thread \(OMP_NUM_THREADS\)",
        r"  model +PosBertForPreTraining, 0.\d+ M parameters",
        r"  data +[\d,]+ training samples, \d+ held out",
        r"  steps +8 of 8 samples, 0.\d+ epochs",
        r"  weighting +SoftmaxMinimax\(alpha=.*\)",
        rf"  output +{tmp_path}/run",
        rf"The model of step 8 is in {tmp_path}/run/model\.",
        rf"  taskrobust finetune-glue --model {tmp_path}/run --glue miniature --output {tmp_path}/run-glue",
        rf"  taskrobust compare {tmp_path}/run ANOTHER_RUN",
    ):
        assert re.search(f"^{line}$", result.stdout, re.MULTILINE), (line, result.stdout)
    assert result.stdout.replace("\n", "").isprintable()  # no control characters


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("nlp/*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid(path: Path) -> None:
    glue = path.stem.startswith("glue")
    options = options_of("finetune-glue" if glue else "pretrain-bert")
    layers = [CONFIGS / "nlp/paper-base.yaml", path] if path.stem == "table4" else [path]
    arguments = [option for layer in layers for option in ("--config", str(layer))]
    model = ["--model", "runs/test"] if glue else []
    parsed = options.parse([*arguments, *model, "--output", "runs/test"])
    for key, value in yaml.safe_load(path.read_text()).get("optim", {}).items():
        assert parsed.optim[key] == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("loop: 5\n", "Expected the settings of loop by name, got 5 in {file}."),
        ("optim: [1]\n", "Expected the settings of optim by name, got [1] in {file}."),
        ("bert: null\n", "Expected the settings of bert by name, got None in {file}."),
        ("loop:\n  1: 2\n", "Expected names of settings in loop, got 1 in {file}."),
        ("weighting: ../..\n", "Expected the path of a class such as my_module.MyClass for weighting, got '../..'."),
        ("weighting: [\n", "Expected YAML in {file}, line 2, column 1: "),
        ("weighting: \x00\n", "Expected YAML in {file}: unacceptable character #x0000"),
        ("", "Expected options by name in {file}, got NoneType."),
        ("- 1\n", "Expected options by name in {file}, got list."),
        ("optim:\n  lr: .inf\n", "Expected a value of at least 0 for optim.lr, got inf."),
    ],
)
def test_a_damaged_configuration_is_one_line_that_names_it(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "changed.yaml"
    file.write_text(content)
    options = options_of("pretrain-bert")
    words = ["--config", str(CONFIGS / "nlp/demo.yaml"), "--config", str(file), "--output", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=re.escape(message.format(file=file))) as error:
        options.call(options.parse(words))
    assert "\n" not in str(error.value).strip()


def test_a_word_of_a_list_may_hold_any_character(tmp_path: Path) -> None:
    result = call("compare", "🎉 ß=nowhere", "b", "--output", tmp_path)
    assert result.returncode == 1
    assert "there is no folder nowhere for '🎉 ß'" in result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_runs(path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, path], capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "worst" in result.stdout or "difference" in result.stdout


HEAVY = ("accelerate", "datasets", "matplotlib", "nltk", "scipy", "sklearn", "timm", "torchvision", "transformers")


def loaded(*arguments: str) -> set[str]:
    """The packages that a command line imports."""
    code = f"""
import sys
from taskrobust.cli import main
sys.argv[1:] = {list(arguments)}
try:
    main()
finally:
    print("LOADED", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return set(result.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["pretrain-brt"]])
def test_overview_needs_neither_torch_nor_the_parser(arguments: list[str]) -> None:
    assert not {"torch", "jsonargparse", *HEAVY} & loaded(*arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_nothing_that_only_its_work_needs(name: str) -> None:
    packages = loaded(*name.split(), "--help")
    assert "jsonargparse" in packages
    assert not {*HEAVY} - {"matplotlib"} & packages


def test_unset_variable_is_named_before_what_takes_seconds_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TASKROBUST_DATA"}
    for config, command_name in (("vision/nyu-small", "pretrain-mae"), ("nlp/books-small", "pretrain-bert")):
        code = f"""
import sys
from taskrobust.cli import main
sys.argv[1:] = ["{command_name}", "--config", "configs/{config}.yaml", "--output", "/nowhere"]
try:
    main()
finally:
    assert not {{"accelerate", "transformers"}} & set(sys.modules)
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert result.returncode == 1
        assert "Expected the environment variable TASKROBUST_DATA to be set" in result.stderr
        assert "AssertionError" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain-brt"], "Expected a command, got 'pretrain-brt'. Did you mean 'pretrain-bert'?"),
        (["--loop.step", "20"], "got '--loop.step'. Did you mean '--loop.steps'?"),
        (["--weigting", "uniform"], "got '--weigting'. Did you mean '--weighting'?"),
        (["--weighting", "minimax"], "Expected a weighting among ['doremi', 'dwa', 'famo', "),
        (["--weighting", "minmax"], "got 'minmax'. Did you mean 'softmax_minimax'?"),
        (["--weighting", "dwa", "--weighting.periode", "3"], "Did you mean '--weighting.period'?"),
        (["--risk", "RiskEstimater"], "Did you mean 'risk_estimator'?"),
        (["--config", "configs/nlp/dmo.yaml"], "did you mean configs/nlp/demo.yaml?"),
        (["--resume", "later"], "Expected auto or never for resume, got 'later'."),
        (["--loop.steps", "many"], "Expected int or null for loop.steps, got 'many'."),
        (["--loop.steps", "3", "4"], "Expected one value for --loop.steps, got '3' '4'."),
        (["--loop.steps"], "Expected one value for --loop.steps, got none."),
        (["--steps", "3"], "Did you mean '--loop.steps'?"),
        (["--weighting.alfa", "3"], "got '--weighting.alfa'. Did you mean '--weighting.alpha'?"),
        (["--weighting.alpha", "linaer"], "got 'linaer'. Did you mean 'linear'?"),
        (["--weighting", "no_module.Own"], "got 'no_module.Own': No module named 'no_module'."),
        (["--weighting.help", "minmax"], "got 'minmax'. Did you mean 'softmax_minimax'?"),
        (["finetune-vision", "--task", "segmentaton"], "Did you mean 'segmentation'?"),
        (["pretrain-mae", "--modalities.rgb", "rbg"], "Did you mean 'rgb'?"),
        (["theory", "bond"], "got 'theory bond'. Did you mean 'theory bound'?"),
        (["demo", "visoin"], "got 'demo visoin'. Did you mean 'demo vision'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_command_line_is_one_sentence_and_exits_with_2(arguments: list[str], message: str) -> None:
    result = call(*(arguments if not arguments[0].startswith("-") else ["pretrain-bert", *arguments]))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "__main__" not in result.stderr
    assert not result.stdout


def test_unknown_key_names_file_and_the_closest_key(config: Path) -> None:
    config.write_text(config.read_text().replace("batch_size", "bach_size"))
    result = call("pretrain-bert", "--config", config)
    assert result.returncode == 2
    message = f"Expected options of taskrobust pretrain-bert in {config}, got 'loop.bach_size'. Did you mean "
    assert f"{message}'loop.batch_size'?" in result.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"weighting": {"class_path": "dwa", "init_args": {"periode": 3}}},
            "got 'weighting.periode' in {file}. Did you mean 'weighting.period'?",
        ),
        ({"weighting": {"class_path": "dwa", "init_arg": {}}}, "got 'init_arg' in {file}."),
        ({"weighting": "minmax"}, "got 'minmax' in {file}. Did you mean 'softmax_minimax'?"),
        ({"loop": {"steps": "many"}}, "Expected int or null for loop.steps, got 'many' in {file}."),
    ],
    ids=str,
)
def test_wrong_setting_in_a_file_names_the_file(
    setting: dict[str, Any], message: str, settings: dict[str, Any], config: Path
) -> None:
    config.write_text(yaml.safe_dump(settings | setting))
    with pytest.raises(ValueError, match=re.escape(message.format(file=config))):
        options_of("pretrain-bert").parse(["--config", str(config), "--output", "run"])


def test_option_overrides_a_wrong_setting_of_a_file_and_is_named_itself(config: Path) -> None:
    words = ["--config", str(config), "--loop.steps", "many"]
    with pytest.raises(ValueError, match=r"^Expected int or null for loop\.steps, got 'many'\.$"):
        options_of("pretrain-bert").parse(words)


def test_wrong_settings_of_a_call_from_python_are_a_value_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"got '--loop\.step'\. Did you mean '--loop\.steps'\?"):
        run("pretrain-bert", settings | {"loop": {"step": 3}, "output": "run"})


def test_classes_inside_of_settings_have_the_same_names(config: Path) -> None:
    words = ["--weighting", "softmax_minimax", "--weighting.alpha", "linear", "--weighting.alpha.start", "0"]
    words += ["--weighting.alpha.end", "3", "--weighting.alpha.steps", "4"]
    alpha = options_of("pretrain-bert").parse(["--config", str(config), *words]).weighting.init_args.alpha
    assert alpha.class_path.rpartition(".")[2] == "Linear"
    demo = ["--config", "configs/vision/demo.yaml", "--output", "run"]
    maps = ["--modalities.depth", "norm_rgb", "--modalities.semseg", "sem-seg", "--modalities.semseg.num_classes", "3"]
    modalities = options_of("pretrain-mae").parse([*demo, *maps]).modalities
    assert [modality.class_path.rpartition(".")[2] for modality in modalities.values()] == ["Rgb", "NormRgb", "SemSeg"]
    assert modalities["semseg"].init_args.num_classes == 3


def test_list_of_a_group_may_be_several_words(config: Path) -> None:
    parsed = options_of("pretrain-bert").parse(["--config", str(config), "--optim.betas", "0.8", "0.9"])
    assert parsed.optim.betas == (0.8, 0.9)


def test_numbers_that_json_lacks_are_read_from_files(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    infinite = {"weighting": {"class_path": "softmax_minimax", "init_args": {"alpha": float("inf")}}}
    path.write_text(yaml.safe_dump(settings | infinite | {"output": "run"}))
    assert options_of("pretrain-bert").parse(["--config", str(path)]).weighting.init_args.alpha == float("inf")


def test_help_names_classes_as_one_types_them_and_lists_them_once() -> None:
    text = " ".join(call("finetune-vision", "--help").stdout.split())
    assert text.startswith("usage: taskrobust finetune-vision MODEL --task TASK --output OUTPUT [OPTIONS]")
    assert (
        "One of classification, depth_estimation, linear_probe, segmentation, surface_normals, or my_module.MyClass"
        in text
    )
    assert text.count("image_folders") == 1
    assert "taskrobust.vision" not in text
    assert "<class" not in text
    assert text.index("--output OUTPUT") < text.index("--loop.steps") < text.index("--optim.lr")


def test_help_of_an_option_lists_its_classes_and_their_settings() -> None:
    listed = call("pretrain-bert", "--weighting.help").stdout
    assert re.search(r"^  softmax_minimax +Weights the tasks by the softmax of their risks", listed, re.MULTILINE)
    settings = call("pretrain-bert", "--weighting.help", "softmax_minimax").stdout
    assert settings.startswith("usage: taskrobust pretrain-bert --weighting softmax_minimax [OPTIONS]\n")
    assert "--weighting.alpha ALPHA" in settings
    assert "default: 3.0" in settings
    assert "--masking.seed" in call("pretrain-bert", "--masking.help").stdout
    data = call("finetune-vision", "--train.help", "image-folders").stdout
    assert "--train.root" in data
    assert "--train.transform" not in data


@pytest.mark.parametrize("spelling", ["softmax_minimax", "SoftmaxMinimax", "taskrobust.weighting.SoftmaxMinimax"])
@pytest.mark.parametrize("place", ["option", "string", "class_path"])
def test_a_strategy_has_one_name_everywhere(
    spelling: str, place: str, settings: dict[str, Any], config: Path, tmp_path: Path
) -> None:
    given = {"class_path": spelling, "init_args": {"alpha": 2.0}} if place == "class_path" else spelling
    if place != "option":
        config.write_text(yaml.safe_dump(settings | {"output": str(tmp_path), "weighting": given}))
    words = ["--weighting", spelling, "--weighting.alpha", "2.0"] if place == "option" else []
    parsed = options_of("pretrain-bert").parse(["--config", str(config), *words])
    assert parsed.weighting.class_path.rpartition(".")[2] == "SoftmaxMinimax"
    assert parsed.weighting.init_args.alpha == (3.0 if place == "string" else 2.0)


def test_packaged_configurations_are_listed_with_what_they_are_for() -> None:
    result = call("configs")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == len(list(CONFIGS.rglob("*.yaml")))
    assert re.search(r"^configs/nlp/demo.yaml +The embedded corpus", result.stdout, re.MULTILINE)


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A command that runs, and does not outlive the test."""
    process = subprocess.Popen(
        command(*arguments),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_exits_with_the_code_of_the_signal(config: Path, tmp_path: Path, number: signal.Signals) -> None:
    with started("pretrain-bert", "--config", config, "--loop.steps", 100_000) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/checkpoints/step-00000004").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors


def test_ctrl_c_while_libraries_are_imported_is_no_traceback(config: Path) -> None:
    with started("pretrain-bert", "--config", config, "--loop.steps", 100_000) as process:
        deadline = time.monotonic() + 120
        while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_ctrl_c_counts_where_a_library_catches_it_while_it_is_imported(config: Path, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import time\nprint('importing', flush=True)\ntry:\n    time.sleep(100)\nexcept BaseException:\n    pass\n"
    )
    process = subprocess.Popen(
        command("pretrain-bert", "--config", config, "--weighting", "stubborn.Own"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "Interrupted.\n")


def test_closed_output_is_no_traceback() -> None:
    words = " ".join(command("configs"))
    result = subprocess.run(f"{words} | head -1", shell=True, capture_output=True, text=True)
    assert "configs/" in result.stdout
    assert not result.stderr


@pytest.mark.parametrize("output", ["| head -1", "> /dev/full"])
def test_a_broken_or_full_output_does_not_end_a_run(output: str, config: Path, tmp_path: Path) -> None:
    words = " ".join(command("pretrain-bert", "--config", config))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(f"{words} {output}", shell=True, capture_output=True, text=True, env=environment)
    assert "Traceback" not in result.stderr
    assert [line["step"] for line in metrics(tmp_path / "run")][-1] == 8
    assert (tmp_path / "run/model").exists()
    assert result.returncode == 0
