"""Fine-tuning a random model on the generated GLUE."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForPreTraining

from taskrobust import cli
from taskrobust.cli.options import Options
from taskrobust.nlp.corpus.wordpiece import train_wordpiece
from taskrobust.nlp.glue.miniature import write_miniature_glue
from taskrobust.nlp.glue.tasks import GLUE, GlueTask
from taskrobust.training.metrics import CLOCKED
from taskrobust.training.results import read_results
from taskrobust.training.trainer import Trainer
from tests.helpers import glue_process

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "glue"
    write_miniature_glue(folder, train=60, dev=21, test=9)
    return folder


@pytest.fixture(scope="module")
def model(glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of pre-training."""
    run = tmp_path_factory.mktemp("pretrained")
    tokenizer = train_wordpiece([path.read_text() for path in glue.rglob("*.tsv")], vocab_size=300)
    tokenizer.model_max_length = 64
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,  # so that predictions differ
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertForPreTraining(config).save_pretrained(run / "model")
    tokenizer.save_pretrained(run / "model")
    return run


def settings(model: Path, glue: Path, output: Path, **more: Any) -> dict[str, Any]:
    return {"model": str(model), "glue": str(glue), "output": str(output), **more}


def in_processes(number: int, dies_after: str = "never", **given: Any) -> list[int]:
    """The exit codes of the processes of a fine-tuning."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    ranks = []
    for rank in range(number):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        if number > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
            environment |= {"LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "tests.helpers.glue_process", json.dumps(given), dies_after]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    return [process.wait(120) for process in ranks]


def lines(run: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKED} for line in read]


def test_all_tasks_end_with_results_a_table_and_a_submission(model: Path, glue: Path, tmp_path: Path) -> None:
    table = glue_process.finetune(
        **settings(model, glue, tmp_path, tasks=["all"], seeds=[0, 3], predict=True, loop={"steps": 3})
    )
    names = [*GLUE, "mnli-mm"]
    assert sorted(table.rows) == sorted(names)
    saved = json.loads((tmp_path / "table.json").read_text())
    assert saved["avg9"] == pytest.approx(sum(saved["tasks"][name]["median"] for name in names) / 9)
    assert saved["worst"]["median"] == min(saved["tasks"][name]["median"] for name in GLUE)
    assert (tmp_path / "table.md").read_text().startswith("| task | metric | median | lowest | highest | seeds |")

    (matched, mismatched) = read_results(tmp_path / "mnli/seed3")
    assert (matched.task, matched.split, mismatched.task, mismatched.split) == (
        "mnli",
        "dev_matched",
        "mnli-mm",
        "dev_mismatched",
    )
    assert (matched.title, matched.place, matched.counted) == ("MNLI", 0, True)
    assert (mismatched.title, mismatched.place, mismatched.counted) == ("MNLI-mm", 1, False)
    assert (matched.step, matched.seed, matched.model, matched.pretrained) == (3, 3, "last", str(model))
    (result,) = read_results(tmp_path / "mrpc/seed0")
    assert (result.metric, result.value) == ("f1", result.metrics["f1"])
    assert (result.step, result.data, set(result.metrics)) == (3, "GLUE", {"f1", "accuracy"})

    submission = {path.stem: path.read_text().splitlines() for path in (tmp_path / "submission").iterdir()}
    assert set(submission) == {name for task in GLUE.values() for name in task.test}
    for task in GLUE.values():
        for name in task.test:
            header, *rows = (line.split("\t") for line in submission[name])
            assert header == ["index", "prediction"]
            assert [index for index, _ in rows] == [str(number) for number in range(9)]
            assert task.labels is None or {prediction for _, prediction in rows} <= set(task.labels)


def test_run_prints_its_settings_and_the_folders_of_the_models(
    model: Path, glue: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    glue_process.finetune(**settings(model, glue, tmp_path, tasks=["rte"], loop={"steps": 2}))
    printed, noise = capfd.readouterr()
    assert "finetune-glue:\n  device     CPU, fp32 (as set)" in printed
    assert f"Models: {tmp_path}/TASK/seedK/model\nNext:\n  taskrobust compare {tmp_path} ANOTHER_RUN\n" in printed
    assert noise == ""


def test_fine_tuned_model_is_one_of_transformers(model: Path, glue: Path, tmp_path: Path) -> None:
    glue_process.finetune(**settings(model, glue, tmp_path, tasks=["mnli"], loop={"steps": 2}))
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "mnli/seed0/model")
    assert network.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    assert (tmp_path / "mnli/seed0/model/tokenizer.json").exists()
    assert not (tmp_path / "mnli/seed0/checkpoints").exists()


def test_no_best_model_is_written_since_the_last_one_counts(
    model: Path, glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[str] = []
    export = Trainer._export

    def notes(self: Trainer, folder: Path, *given: Any) -> None:
        exported.append(folder.name)
        export(self, folder, *given)

    monkeypatch.setattr(Trainer, "_export", notes)
    glue_process.finetune(**settings(model, glue, tmp_path, loop={"steps": 4, "eval_every": 1}))
    assert exported == ["model"]
    evaluations = [line for line in lines(tmp_path / "cola/seed0") if line["split"] == "held_out"]
    assert [line["best"] for line in evaluations] == [False] * 4


def test_heads_of_two_seeds_differ_and_trunks_are_the_same(model: Path, glue: Path, tmp_path: Path) -> None:
    glue_process.finetune(**settings(model, glue, tmp_path, seeds=[0, 1], loop={"steps": 1}))
    first, second = (load_file(tmp_path / f"cola/seed{seed}/model/model.safetensors") for seed in (0, 1))
    before = load_file(model / "model/model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.allclose(first[name], before[name], atol=2e-3)
    assert not torch.allclose(first["classifier.weight"], second["classifier.weight"], atol=2e-3)


def test_finished_runs_are_not_repeated(model: Path, glue: Path, tmp_path: Path) -> None:
    given = settings(model, glue, tmp_path, loop={"steps": 2})
    glue_process.finetune(**given)
    before = (tmp_path / "cola/seed0/metrics.jsonl").stat().st_mtime_ns
    table = glue_process.finetune(**given, seeds=[0, 1])
    assert (tmp_path / "cola/seed0/metrics.jsonl").stat().st_mtime_ns == before
    assert [result.seed for result in table.rows["cola"].results] == [0, 1]


def test_failed_task_does_not_stop_the_others(model: Path, tmp_path: Path) -> None:
    write_miniature_glue(tmp_path / "glue", train=20, dev=8, test=8)
    with (tmp_path / "glue/CoLA/train.tsv").open("a") as file:
        file.write("gj04\t2\t\tNeither.\n")
    given = settings(model, tmp_path / "glue", tmp_path / "runs", tasks=["cola", "rte"], loop={"steps": 2})
    message = (
        r"1 of 2 tasks failed: cola: Expected a label among \['0', '1'\] in column 'label' of line 21 of "
        r".*CoLA/train.tsv, got '2'. The others are in .*table.md. The same command tries these again."
    )
    with pytest.raises(RuntimeError, match=message):
        glue_process.finetune(**given)
    assert "| rte | accuracy |" in (tmp_path / "runs/table.md").read_text()


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"model": "other"}, r"model is '.*' there and 'other' here"),
        ({"loop": {"steps": 2}}, r"loop.steps is 1 there and 2 here"),
        ({"train_samples": 7}, r"train_samples is None there and 7 here"),
    ],
)
def test_runs_of_different_settings_do_not_share_a_table(
    model: Path, glue: Path, tmp_path: Path, other: dict[str, Any], difference: str
) -> None:
    given = settings(model, glue, tmp_path, loop={"steps": 1})
    glue_process.finetune(**given)
    message = rf"cola/seed0 was made with other settings: {difference}. Choose another"
    with pytest.raises(ValueError, match=message):
        glue_process.finetune(**given | {"tasks": ["rte"], "seeds": [1]} | other)
    assert not (tmp_path / "rte").exists()


def test_number_of_seeds_counts_from_zero_and_a_list_names_them(model: Path, glue: Path, tmp_path: Path) -> None:
    given = settings(model, glue, tmp_path, loop={"steps": 1})
    assert [result.seed for result in glue_process.finetune(**given, seeds=2).rows["cola"].results] == [0, 1]
    assert [result.seed for result in glue_process.finetune(**given, seeds=[5]).rows["cola"].results] == [0, 1, 5]


@pytest.mark.parametrize("seeds", [0, -1, []])
def test_no_seed_is_an_error(model: Path, glue: Path, tmp_path: Path, seeds: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected the number of seeds, at least 1, or a list of seeds such as \[0\]"):
        glue_process.finetune(**settings(model, glue, tmp_path, seeds=seeds))


@pytest.mark.parametrize(
    ("options", "seeds"), [(["--seeds", "3"], 3), (["--seeds", "[0]"], [0]), (["--seeds", "0", "4"], [0, 4]), ([], 5)]
)
def test_seeds_and_steps_of_the_command_line_arrive(
    monkeypatch: pytest.MonkeyPatch, options: list[str], seeds: Any
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(Options, "call", lambda options, config: given.update(options.parser.instantiate(config)))
    words = ["taskrobust", "finetune-glue", "--model", "a", "--glue", "b", "--output", "c", "--loop.steps", "7"]
    monkeypatch.setattr(sys, "argv", [*words, *options])
    cli.main()
    assert given["seeds"] == seeds
    assert (given["loop"].steps, given["loop"].epochs, given["loop"].eval_every) == (7, None, None)


def test_ten_epochs_by_default(model: Path, tmp_path: Path) -> None:
    write_miniature_glue(tmp_path / "glue", train=20, dev=8, test=8)
    loop = {"steps": None, "eval_every": None}
    glue_process.finetune(**settings(model, tmp_path / "glue", tmp_path / "runs", loop=loop))
    (result,) = read_results(tmp_path / "runs/cola/seed0")
    assert result.step == 25  # 20 samples, 8 per step
    assert yaml.safe_load((tmp_path / "runs/cola/seed0/config.yaml").read_text())["loop"]["epochs"] == 10


def test_results_name_the_number_of_training_samples(model: Path, glue: Path, tmp_path: Path) -> None:
    glue_process.finetune(**settings(model, glue, tmp_path / "few", train_samples=16, loop={"steps": 1}))
    glue_process.finetune(**settings(model, glue, tmp_path / "all", train_samples=60, loop={"steps": 1}))
    assert read_results(tmp_path / "few/cola/seed0")[0].data == "GLUE, 16 training samples"
    assert read_results(tmp_path / "all/cola/seed0")[0].data == "GLUE"


def test_left_out_lines_are_reported(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_miniature_glue(tmp_path / "glue", train=1000, dev=8, test=8)
    with (tmp_path / "glue/QQP/train.tsv").open("a") as file:
        file.write("14\t3\t4\tCut off\n")
    given = settings(model, tmp_path / "glue", tmp_path / "runs", tasks=["qqp"], seeds=2, train_samples=16)
    glue_process.finetune(**given, loop={"steps": 1})
    assert capsys.readouterr().out.count("QQP/train.tsv have too few columns, the first is line 1002: left out.") == 1


def test_folder_without_a_model_is_named(glue: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a finished run or a model's folder, got .* with neither model/"):
        glue_process.finetune(**settings(tmp_path, glue, tmp_path / "runs"))


def test_missing_folder_is_not_looked_up_on_the_hub(glue: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a run folder, .*, got .*runs/none, which is no folder"):
        glue_process.finetune(**settings(tmp_path / "runs/none", glue, tmp_path / "out"))


def test_parameters_of_another_architecture_are_refused(model: Path, glue: Path, tmp_path: Path) -> None:
    shutil.copytree(model / "model", tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    save_file({f"other.{name}": value for name, value in weights.items()}, tmp_path / "model/model.safetensors")
    with pytest.raises(
        RuntimeError,
        match=r"Expected the parameters of a BertModel in .*/model, got a model without \d+ of them",
    ):
        glue_process.finetune(**settings(tmp_path, glue, tmp_path / "out"))


def test_miniature_is_written_into_the_output(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "taskrobust.nlp.glue.miniature.write_miniature_glue",
        lambda folder: write_miniature_glue(folder, train=16, dev=8, test=8),
    )
    glue_process.finetune(**settings(model, Path("miniature"), tmp_path, loop={"steps": 1}))
    assert (tmp_path / "miniature-glue/CoLA/dev.tsv").exists()
    assert read_results(tmp_path / "cola/seed0")[0].data == "miniature GLUE"


def test_task_without_a_generator_is_not_part_of_the_miniature(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = GlueTask(name="wnli", folder="WNLI", texts=("sentence1", "sentence2"), label="label", labels=("0", "1"))
    monkeypatch.setitem(GLUE, "wnli", row)
    monkeypatch.setattr(
        "taskrobust.nlp.glue.miniature.write_miniature_glue",
        lambda folder: write_miniature_glue(folder, train=16, dev=8, test=8),
    )
    given = settings(model, Path("miniature"), tmp_path, tasks=["wnli", "rte"], loop={"steps": 1})
    with pytest.raises(RuntimeError, match=r"1 of 2 tasks failed: wnli: Expected a task of the miniature GLUE, got wn"):
        glue_process.finetune(**given)
    assert not (tmp_path / "miniature-glue/WNLI").exists()
    assert (tmp_path / "rte/seed0/results.json").exists()


def test_killed_run_resumes_bit_by_bit(model: Path, glue: Path, tmp_path: Path) -> None:
    given = {"tasks": ["stsb"], "seeds": [2]}
    assert in_processes(1, "7", **settings(model, glue, tmp_path / "killed", **given)) == [-9]
    assert not (tmp_path / "killed/stsb/seed2/results.json").exists()
    for name in ("killed", "reference"):
        glue_process.finetune(**settings(model, glue, tmp_path / name, **given))
    killed, reference = tmp_path / "killed/stsb/seed2", tmp_path / "reference/stsb/seed2"
    assert lines(killed) == lines(reference)
    assert read_results(killed) == read_results(reference)
    weights = "model/model.safetensors"
    assert (killed / weights).read_bytes() == (reference / weights).read_bytes()


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(model: Path, glue: Path, tmp_path: Path) -> None:
    without_dropout = tmp_path / "model"
    network = BertForPreTraining.from_pretrained(
        model / "model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    network.save_pretrained(without_dropout)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (without_dropout / name).write_bytes((model / "model" / name).read_bytes())
    given = settings(without_dropout, glue, tmp_path / "two", tasks=["mnli", "stsb"], predict=True)
    assert in_processes(2, **given | {"loop": {"batch_size": 4}}) == [0, 0]
    glue_process.finetune(**given | {"output": str(tmp_path / "one")})
    for run in ("mnli/seed0", "stsb/seed0"):
        one, two = ([r.metrics for r in read_results(tmp_path / name / run)] for name in ("one", "two"))
        assert one == [pytest.approx(metrics, abs=1e-6) for metrics in two]
        for line, expected in zip(lines(tmp_path / "two" / run), lines(tmp_path / "one" / run), strict=True):
            assert line["risks"] == pytest.approx(expected["risks"], rel=1e-5)
    files = sorted(path.name for path in (tmp_path / "one/submission").iterdir())
    assert files == ["MNLI-m.tsv", "MNLI-mm.tsv", "STS-B.tsv"]
    for file in files:
        one, two = ((tmp_path / name / "submission" / file).read_text() for name in ("one", "two"))
        assert one == two
