"""Pre-training of Multi-Modal Mask MAE, and prediction, as a user runs them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from taskrobust.cli import options_of, run
from taskrobust.training.config import OptimConfig
from taskrobust.training.metrics import CLOCKED
from taskrobust.training.optim import make_optimizer
from taskrobust.vision.data import ImageFolders
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import NormRgb, Rgb, SemSeg
from taskrobust.weighting import Uncertainty

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
OVERLAYS = [*CONFIGS.glob("weighting/*.yaml"), CONFIGS / "vision/uncertainty.yaml"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and eight validation images of noise in folders, with depth and labels."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, number in (("train", 12), ("val", 8)):
        for index in range(number):
            maps = {
                "rgb": rng.integers(0, 256, (40, 48, 3), dtype=np.uint8),
                "depth": rng.integers(300, 10000, (40, 48), dtype=np.uint16),
                "semseg": rng.integers(0, 5, (40, 48), dtype=np.uint8),
            }
            for name, values in maps.items():
                path = root / split / name / "all" / f"{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return root


@pytest.fixture
def settings(images: Path) -> dict[str, Any]:
    """A run of a tiny model, without its output folder."""
    return {
        "modalities": {
            "rgb": "Rgb",
            "depth": "Depth",
            "semseg": {"class_path": "SemSeg", "init_args": {"num_classes": 5}},
        },
        "train": {"class_path": "ImageFolders", "init_args": {"root": str(images), "split": "train"}},
        "held_out": {"class_path": "ImageFolders", "init_args": {"root": str(images), "split": "val"}},
        "mae": {
            "image_size": 32,
            "patch_size": 8,
            "width": 32,
            "depth": 2,
            "heads": 2,
            "decoder_width": 16,
            "decoder_depth": 1,
            "decoder_heads": 2,
            "visible": 8,
        },
        "loop": {"steps": 8, "batch_size": 4, "log_every": 1, "eval_every": 4, "checkpoint_every": 2},
        "optim": {"lr": 1e-3},
        "device": {"precision": "fp32"},
        "pictures": 2,
    }


def command(*arguments: object, processes: int = 1) -> list[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(launch if processes > 1 else []), "-m", "taskrobust", *map(str, arguments)]


def call(*arguments: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*arguments, processes=processes), capture_output=True, text=True, env=environment, timeout=300
    )


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKED} for line in lines]


def assert_same_curve(output: Path, reference: Path) -> None:
    for ours, theirs in zip(metrics(output), metrics(reference), strict=True):
        assert ours["risks"] == pytest.approx(theirs["risks"], rel=1e-5)
        if ours["split"] == "train":
            assert ours["weights"] == pytest.approx(theirs["weights"], rel=1e-5)


def write_config(settings: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def test_run_leaves_models_metrics_and_pictures(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    getitems = ImageFolders.__getitems__

    def noting(images: ImageFolders, keys: Any) -> Any:
        read.extend(index for index, _ in keys if len(images) == 8)
        return getitems(images, keys)

    monkeypatch.setattr(ImageFolders, "__getitems__", noting)
    evaluation = run("pretrain-mae", settings | {"output": str(tmp_path / "run")})
    assert set(read) == set(range(8))  # all held-out images are evaluated
    assert list(evaluation.risks) == ["rgb", "depth", "semseg"]
    for name in ("model", "best"):
        model = MultiModalMae.from_pretrained(tmp_path / "run" / name)
        assert model.tasks == ("rgb", "depth", "semseg")
    drawn = sorted(path.name for path in (tmp_path / "run/pictures").iterdir())
    assert drawn == ["step-00000004-predictions.png", "step-00000008-predictions.png"]
    with Image.open(tmp_path / "run/pictures" / drawn[0]) as picture:
        assert picture.size == (9 * (128 + 4) - 4, 16 + 2 * (128 + 4))  # four times as large, to be seen


@pytest.mark.parametrize("weighting", ["SoftmaxMinimax", pytest.param("Uncertainty", marks=pytest.mark.slow)])
def test_killed_run_goes_on_to_the_same_metrics_and_model(
    weighting: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    loop = settings["loop"] | {"steps": 30, "workers": 1}
    settings = settings | {"loop": loop, "weighting": weighting}
    run("pretrain-mae", settings | {"output": str(tmp_path / "whole")})
    config = write_config(settings | {"output": str(tmp_path / "run")}, tmp_path / "config.yaml")
    process = subprocess.Popen(
        command("pretrain-mae", "--config", config),
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
    result = call("pretrain-mae", "--config", config)
    assert result.returncode == 0, result.stderr
    assert "Resuming from step" in result.stdout
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    models = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("run", "whole")]
    assert models[0] == models[1]


PARALLEL = {
    "ddp": [],
    "memory_efficient with GradNorm": ["--mae.memory_efficient", "true", "--weighting", "GradNorm"],
    "fsdp2": ["--device.parallel", "fsdp2"],
    "fsdp2 with GradNorm": ["--device.parallel", "fsdp2", "--weighting", "GradNorm"],
}


@pytest.mark.parametrize(
    "options",
    [pytest.param(options, id=name, marks=[pytest.mark.slow] * ("with" in name)) for name, options in PARALLEL.items()],
)
def test_two_processes_give_the_curve_of_one_with_twice_the_batch(
    options: list[str], settings: dict[str, Any], tmp_path: Path
) -> None:
    config = write_config(settings, tmp_path / "config.yaml")
    weighting = {"weighting": "GradNorm"} if "GradNorm" in options else {}
    run("pretrain-mae", settings | weighting | {"output": str(tmp_path / "one")})
    halves = ["--loop.batch_size", 2, *options]
    result = call("pretrain-mae", "--config", config, "--output", tmp_path / "two", *halves, processes=2)
    assert result.returncode == 0, result.stderr
    assert_same_curve(tmp_path / "two", tmp_path / "one")
    MultiModalMae.from_pretrained(tmp_path / "two/model")


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_every_weighting_trains(overlay: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    changes = yaml.safe_load(overlay.read_text())
    evaluation = run("pretrain-mae", settings | changes | {"output": str(tmp_path / "run")})
    assert np.isfinite(evaluation.worst)


VARIANTS = {
    "bf16": {"device": {"precision": "bf16"}},
    "memory_efficient": {"mae": {"memory_efficient": True}},
    "GradNorm, memory_efficient": {"mae": {"memory_efficient": True}, "weighting": "GradNorm"},
    "window of running risks": {"loop": {"accumulation": 2}},
    "window of two passes": {"loop": {"accumulation": 2, "window_weights": "two_pass"}},
    "EMA": {"optim": {"average": "ema"}},
    "norm_rgb": {"modalities": {"norm_rgb": "NormRgb"}},
    "uncertainty of four tasks": {"modalities": {"norm_rgb": "NormRgb"}, "weighting": "Uncertainty"},
    "uniform budget": {"mae": {"budget": "uniform"}},
    "fixed budget": {"mae": {"budget": "fixed", "proportions": [0.5, 0.25, 0.25]}},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains(changes: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    for key, value in changes.items():
        settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
    evaluation = run("pretrain-mae", settings | {"output": str(tmp_path / "run")})
    assert np.isfinite(evaluation.worst)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_run_has_the_metrics_of_the_plain_one(settings: dict[str, Any], tmp_path: Path) -> None:
    run("pretrain-mae", settings | {"output": str(tmp_path / "plain")})
    run(
        "pretrain-mae",
        settings | {"output": str(tmp_path / "compiled"), "device": {"precision": "fp32", "compile": True}},
    )
    assert_same_curve(tmp_path / "compiled", tmp_path / "plain")


def test_memory_efficient_run_has_the_metrics_of_the_joint_one(settings: dict[str, Any], tmp_path: Path) -> None:
    run("pretrain-mae", settings | {"output": str(tmp_path / "joint")})
    efficient = settings["mae"] | {"memory_efficient": True}
    run("pretrain-mae", settings | {"output": str(tmp_path / "efficient"), "mae": efficient})
    assert_same_curve(tmp_path / "efficient", tmp_path / "joint")


def test_run_says_what_it_will_do_and_where_the_model_is(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pretrain-mae", settings | {"output": str(tmp_path / "first")})
    capsys.readouterr()
    run("pretrain-mae", settings | {"output": str(tmp_path / "second"), "init_from": str(tmp_path / "first")})
    printed = capsys.readouterr().out
    assert printed.startswith("pretrain-mae:\n  device ")  # no word of other libraries before
    assert re.search(r"^  tasks +rgb, depth, semseg$", printed, re.MULTILINE)
    assert f"  taskrobust finetune-vision --model {tmp_path}/second --config configs/vision/" in printed


def test_run_starts_from_another_runs_model(settings: dict[str, Any], tmp_path: Path) -> None:
    run("pretrain-mae", settings | {"output": str(tmp_path / "first")})
    start = {"init_from": str(tmp_path / "first"), "optim": {"lr": 0.0}}
    run("pretrain-mae", settings | start | {"output": str(tmp_path / "second")})
    before, after = (MultiModalMae.from_pretrained(tmp_path / name / "model") for name in ("first", "second"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))

    for number, (changes, message) in enumerate(
        (
            ({"init_from": str(tmp_path / "nowhere")}, "a model's folder or a name on the hub, got .*nowhere"),
            ({"init_from": str(tmp_path)}, "Expected a run folder with a finished model"),
            ({"mae": settings["mae"] | {"heads": 4}}, "to be of the same kind, but heads is"),
        )
    ):
        with pytest.raises(ValueError, match=message):
            run("pretrain-mae", settings | start | changes | {"output": str(tmp_path / f"refused-{number}")})


def test_memory_efficiency_is_refused_where_it_cannot_be(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = settings | {"mae": settings["mae"] | {"memory_efficient": True}, "device": {"parallel": "fsdp2"}}
    with pytest.raises(ValueError, match="Expected parallel=ddp and precision bf16 or fp32 with memory_efficient"):
        run("pretrain-mae", settings | {"output": str(tmp_path / "run")})


def test_files_that_cannot_be_read_are_counted(settings: dict[str, Any], images: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    subprocess.run(["cp", "-r", images, root], check=True)
    (root / "train/depth/all/003.png").write_bytes(b"no image")
    settings["train"]["init_args"] |= {"root": str(root)}
    settings["loop"] |= {"workers": 1}
    config = write_config(settings | {"output": str(tmp_path / "run")}, tmp_path / "config.yaml")
    result = call("pretrain-mae", "--config", config)
    assert result.returncode != 0
    assert "003.png cannot be read as an image" in result.stderr
    assert "Traceback" not in result.stderr
    result = call("pretrain-mae", "--config", config, "--train.on_error", "skip")  # goes on
    assert result.returncode == 0, result.stderr
    assert "Files of training images that could not be read and were left out: 1." in result.stdout


def test_shards_give_the_run_of_their_folders(settings: dict[str, Any], images: Path, tmp_path: Path) -> None:
    result = call("shards", "--source", images / "train", "--output", tmp_path / "shards", "--samples-per-shard", 5)
    assert result.returncode == 0, result.stderr
    run("pretrain-mae", settings | {"output": str(tmp_path / "folders")})
    places = {"folder": str(tmp_path / "shards")}
    shards = {"train": {"class_path": "ImageShards", "init_args": places}}
    run("pretrain-mae", settings | shards | {"output": str(tmp_path / "shards-run")})
    assert metrics(tmp_path / "shards-run") == metrics(tmp_path / "folders")


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA names no folder with NYUv2")
def test_nyu_goes_on_after_kill_and_matches_itself_under_two_processes(tmp_path: Path) -> None:
    few = ["--loop.steps", 6, "--loop.checkpoint_every", 2, "--loop.eval_every", 3, "--loop.log_every", 1]
    few += ["--loop.batch_size", 4, "--held_out_samples", 8, "--device.precision", "fp32", "--optim.warmup_steps", 0]
    arguments = ["pretrain-mae", "--config", CONFIGS / "vision/nyu-small.yaml", *few]
    assert call(*arguments, "--output", tmp_path / "whole").returncode == 0
    process = subprocess.Popen(
        command(*arguments, "--output", tmp_path / "killed"),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / "killed/checkpoints/step-00000002").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    result = call(*arguments, "--output", tmp_path / "killed")
    assert "Resuming from step" in result.stdout
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    result = call(*arguments, "--output", tmp_path / "two", "--loop.batch_size", 2, processes=2)
    assert result.returncode == 0, result.stderr
    assert_same_curve(tmp_path / "two", tmp_path / "whole")


def test_predict_draws_all_maps_of_an_image(settings: dict[str, Any], images: Path, tmp_path: Path) -> None:
    run("pretrain-mae", settings | {"output": str(tmp_path / "run")})
    files = [images / f"val/rgb/all/{number:03d}.png" for number in (0, 1)]
    output = tmp_path / "predictions"
    result = call("predict", "--model", tmp_path / "run", "--image", *files, "--output", output, "--visible", 16)
    assert result.returncode == 0, result.stderr
    for name in ("000", "001"):
        assert sorted(path.name for path in (output / name).iterdir()) == [
            "depth.png",
            "grid.png",
            "rgb.png",
            "semseg.png",
        ]
        with Image.open(output / name / "depth.png") as depth:
            assert depth.size == (32, 32)
            assert depth.getextrema() != ((0, 0), (0, 0), (0, 0))
    again = tmp_path / "again"
    call("predict", "--model", tmp_path / "run/model", "--image", files[0], "--output", again, "--visible", 16)
    assert (again / "000/grid.png").read_bytes() == (output / "000/grid.png").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model", "missing", "--image", "a.png"],
            "Expected a run folder with a finished model, or a model's folder",
        ),
        (["--image", "pyproject.toml"], "pyproject.toml cannot be read as an image"),
        (["--image", "a.png", "--visible", "17"], "Expected 1 to 16 visible patches, got 17."),
    ],
)
def test_predict_says_what_is_wrong(
    options: list[str], message: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--model" not in options:
        run("pretrain-mae", settings | {"output": str(tmp_path / "run"), "loop": settings["loop"] | {"steps": 1}})
        options = ["--model", str(tmp_path / "run"), *options]
    monkeypatch.chdir(ROOT)
    result = call("predict", *options, "--output", tmp_path / "predictions")
    assert result.returncode != 0
    assert message in result.stderr


def test_nyu_models_are_not_selected_on_the_test_images() -> None:
    config = yaml.safe_load((CONFIGS / "vision/nyu-small.yaml").read_text())
    train, held_out = (config[name]["init_args"] for name in ("train", "held_out"))
    assert train["split"] == held_out["split"] == "train"
    assert train["part"][1] == held_out["part"][0]


def test_only_matrices_decay() -> None:
    modalities = {"rgb": Rgb(), "semseg": SemSeg(num_classes=5), "norm_rgb": NormRgb()}
    model = MultiModalMae(modalities, 32, 8, width=32, depth=1, heads=2, decoder_width=16, decoder_heads=2, visible=8)
    weighting = Uncertainty()
    weighting.setup(tuple(modalities))
    optimizer = make_optimizer(model, weighting, OptimConfig(weight_decay=0.05))
    names = {parameter: name for name, parameter in [*model.named_parameters(), *weighting.named_parameters()]}
    still = {names[p] for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {"log_variance", "encoder.global_token", "decoders.rgb.mask_token"} <= still
    assert {name for name in names.values() if re.search(r"bias$|norm\d?\.weight$", name)} <= still
    assert len(names) == sum(len(group["params"]) for group in optimizer.param_groups)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("vision/*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid(path: Path) -> None:
    options = options_of("pretrain-mae")
    layers = [path] if "modalities" in path.read_text() else [CONFIGS / "vision/paper-in1k.yaml", path]
    arguments = [option for layer in layers for option in ("--config", str(layer))]
    parsed = options.parse([*arguments, "--output", "runs/test"])
    for group, values in yaml.safe_load(path.read_text()).items():
        if group in ("loop", "optim", "mae"):
            assert {key: parsed[group][key] for key in values} == {
                key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
            }


def test_excess_risks_over_a_fixed_reference_and_over_a_frozen_model(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pretrain-mae", settings | {"weighting": "Uniform", "output": str(tmp_path / "first")})
    reference = run("reference", {"runs": [str(tmp_path / "first")], "output": str(tmp_path / "reference.json")})
    values = {"class_path": "FixedReference", "init_args": {"values": str(tmp_path / "reference.json")}}
    risk = {"class_path": "RiskEstimator", "init_args": {"smoothing": 0.5, "reference": values}}
    fixed = run("pretrain-mae", settings | {"risk": risk, "output": str(tmp_path / "fixed")})

    excess = {task: fixed.risks[task] - reference[task] for task in fixed.risks}
    assert (fixed.worst, fixed.worst_task) == (pytest.approx(max(excess.values())), max(excess, key=excess.__getitem__))
    assert "held-out excess risk, mean" in capsys.readouterr().out

    risk = {"class_path": "RiskEstimator", "init_args": {"smoothing": 0.5, "reference": "ModelReference"}}
    loop = settings["loop"] | {"steps": 4, "batch_size": 2, "accumulation": 2, "window_weights": "two_pass"}
    frozen = {"reference_model": str(tmp_path / "first"), "risk": risk}
    model = run("pretrain-mae", settings | frozen | {"loop": loop, "output": str(tmp_path / "model")})
    excess = {task: model.risks[task] - reference[task] for task in model.risks}  # on the same held-out images
    assert model.worst == pytest.approx(max(excess.values()), rel=1e-3)
    assert all(
        line["excess"].keys() == excess.keys() for line in metrics(tmp_path / "model") if line["split"] == "train"
    )


def test_a_weighting_of_torchjd_can_be_named_and_resumes(settings: dict[str, Any], tmp_path: Path) -> None:
    inner = {"class_path": "torchjd.aggregation.GradVacWeighting"}
    settings = settings | {"weighting": {"class_path": "Gramian", "init_args": {"inner": inner, "every": 2}}}
    run("pretrain-mae", settings | {"output": str(tmp_path / "whole")})
    run("pretrain-mae", settings | {"output": str(tmp_path / "resumed")})
    for later in (tmp_path / "resumed" / "checkpoints").glob("step-00000008"):
        shutil.rmtree(later)
    run("pretrain-mae", settings | {"output": str(tmp_path / "resumed")})
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")


def test_a_reference_model_and_its_reference_need_each_other(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = settings | {"output": str(tmp_path / "run")}
    risk = {"class_path": "RiskEstimator", "init_args": {"reference": "ModelReference"}}
    with pytest.raises(ValueError, match=r"^Expected --reference_model with the reference ModelReference, got none\.$"):
        run("pretrain-mae", settings | {"risk": risk})
    with pytest.raises(
        ValueError, match=r"^Expected --risk.reference ModelReference with --reference_model x, got no "
    ):
        run("pretrain-mae", settings | {"reference_model": "x"})
