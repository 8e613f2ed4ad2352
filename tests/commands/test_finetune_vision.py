"""Fine-tuning of vision encoders, as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from taskrobust.cli import options_of, run
from taskrobust.synthetic.rooms import OBJECTS, generate_scenes
from taskrobust.training.metrics import CLOCKED
from taskrobust.training.results import read_results
from taskrobust.vision.data import TargetCollate
from taskrobust.vision.downstream import DepthEstimation, DownstreamTask, LinearProbe, Segmentation
from taskrobust.vision.downstream.hub import load_downstream, save_downstream
from taskrobust.vision.downstream.model import DownstreamModel
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Depth, Rgb

CONFIGS_FOLDER = Path(__file__).parents[2] / "configs/vision/finetune"
CONFIGS = sorted(CONFIGS_FOLDER.glob("*.yaml"))
RAND_AUGMENT = {"class_path": "RandAugment", "init_args": {"scale": [0.5, 1.0]}}
TASKS: dict[str, dict[str, Any]] = {
    "classification": {
        "task": {"class_path": "Classification", "init_args": {"num_classes": len(OBJECTS)}},
        "augmentation": RAND_AUGMENT,
    },
    "linear-probe": {"task": {"class_path": "LinearProbe", "init_args": {"num_classes": len(OBJECTS)}}},
    "semseg": {
        "task": {"class_path": "Segmentation", "init_args": {"num_classes": 32, "channels": 4}},
        "augmentation": {"class_path": "LargeScale", "init_args": {"jitter": 0.4}},
        "inputs": ["rgb", "depth"],
    },
    "depth": {"task": {"class_path": "DepthEstimation", "init_args": {"channels": 8}}},
}
HEADLINES = {"classification": "top1", "linear-probe": "top1", "semseg": "miou", "depth": "delta1"}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated rooms: twelve to train on, ten held out, and nine to test on."""
    root = tmp_path_factory.mktemp("rooms")
    for split, name, number in (("train", "train", 12), ("val", "held-out", 10), ("test", "test", 9)):
        generate_scenes(root / name, split, number, 36, domain="shifted")  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny model."""
    folder = tmp_path_factory.mktemp("pretrained")
    sizes = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 4, "heads": 2}
    decoder = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "visible": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MultiModalMae({"rgb": Rgb(), "depth": Depth()}, **sizes, **decoder).save_pretrained(folder / "model")  # type: ignore[operator]
    return folder


@pytest.fixture
def settings(rooms: Path, pretrained: Path) -> Callable[..., dict[str, Any]]:
    """Makes the settings of a short run, without its output folder."""

    def make(task: str, **changes: Any) -> dict[str, Any]:
        data = {
            name: {"class_path": "Scenes", "init_args": {"folder": str(rooms / folder)}}
            for name, folder in (("train", "train"), ("held_out", "held-out"), ("test", "test"))
        }
        loop = {"steps": 6, "batch_size": 4, "log_every": 1, "eval_every": 3, "checkpoint_every": 2}
        optim = {"lr": 1e-3, "layer_decay": 0.75}
        common = {
            "model": str(pretrained),
            "loop": loop,
            "optim": optim,
            "pictures": 2,
            "drop_path": 0.1,
            "device": {"precision": "fp32"},
        }
        merged = common | data | TASKS[task]
        for key, value in changes.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
        return merged

    return make


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


def write_config(settings: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


@pytest.mark.parametrize("task", TASKS)
def test_run_leaves_models_metrics_and_results(
    task: str, settings: Callable[..., dict[str, Any]], pretrained: Path, tmp_path: Path
) -> None:
    run("finetune-vision", settings(task) | {"output": str(tmp_path / "run")})
    (result,) = read_results(tmp_path / "run")
    assert (result.task, result.metric) == (task, HEADLINES[task])
    assert result.title == {"classification": "Cls", "semseg": "Semseg", "depth": "Depth"}.get(task, task)
    assert (result.split, result.model, result.seed, result.pretrained) == ("test", "best", 0, str(pretrained))
    assert result.data == "generated rooms (shifted) at 32 px"
    lines = metrics(tmp_path / "run")
    held_out = {line["step"]: line["scores"] for line in lines if line["split"] == "held_out"}
    assert result.step == max(held_out, key=lambda step: (held_out[step][result.metric], -step))
    assert [line["scores"] for line in lines if line["split"] == "test"] == [result.metrics]
    assert result.value == result.metrics[result.metric]
    for name in ("model", "best"):
        assert load_downstream(tmp_path / "run" / name).task.name == task
    drawn = sorted(path.name for path in (tmp_path / "run").glob("pictures/*"))
    mapped = ["step-00000003-predictions.png", "step-00000006-predictions.png"]
    assert drawn == (mapped if task in ("semseg", "depth") else [])


def test_run_says_what_it_will_do_and_where_the_model_is(
    settings: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("finetune-vision", settings("depth") | {"output": str(tmp_path / "run")})
    printed = capsys.readouterr().out
    assert printed.startswith("finetune-vision:\n  device ")  # no word of other libraries before
    assert re.search(r"^  model +DownstreamModel, 0\.\d+ M parameters$", printed, re.MULTILINE)
    assert f", is in {tmp_path}/run/best." in printed
    assert printed.endswith(f"Next:\n  taskrobust compare {tmp_path}/run ANOTHER_RUN\n")


def test_probe_leaves_the_encoder_as_it_was(
    settings: Callable[..., dict[str, Any]], pretrained: Path, tmp_path: Path
) -> None:
    run("finetune-vision", settings("linear-probe") | {"output": str(tmp_path / "run")})
    before = MultiModalMae.from_pretrained(pretrained / "model").encoder.state_dict()
    after = load_downstream(tmp_path / "run").encoder.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize(
    "task", ["classification", *(pytest.param(task, marks=pytest.mark.slow) for task in ("semseg", "depth"))]
)
def test_killed_run_goes_on_to_the_same_metrics_and_results(
    task: str, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    loop = {"steps": 30, "workers": 1, "eval_every": 15}
    config = settings(task, loop=loop, optim={"average": "ema"})
    run("finetune-vision", config | {"output": str(tmp_path / "whole")})
    file = write_config(config | {"output": str(tmp_path / "run")}, tmp_path / "config.yaml")
    process = subprocess.Popen(
        command("finetune-vision", "--config", file),
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
    result = call("finetune-vision", "--config", file)
    assert result.returncode == 0, result.stderr
    assert "Resuming from step" in result.stdout
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for name in ("results.json", "model/model.safetensors", "best/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_finished_run_is_not_run_again_and_keeps_no_checkpoints(
    settings: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings("linear-probe") | {"output": str(tmp_path / "run")}
    run("finetune-vision", config)
    assert not (tmp_path / "run/checkpoints").exists()
    before = (tmp_path / "run/metrics.jsonl").stat().st_mtime_ns
    run("finetune-vision", config)
    assert "results.json is there: the run is finished." in capsys.readouterr().out
    assert (tmp_path / "run/metrics.jsonl").stat().st_mtime_ns == before


def test_predictions_of_runs_are_drawn_side_by_side(
    settings: Callable[..., dict[str, Any]], rooms: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        run("finetune-vision", settings("semseg", loop={"seed": seed}) | {"output": str(tmp_path / f"run{seed}")})
    runs = [f"average={tmp_path / 'run0'}", str(tmp_path / "run1")]
    test = ["--test", "Scenes", "--test.folder", rooms / "test"]
    result = call("compare-predictions", *runs, *test, "--rows", 2, "--output", tmp_path / "figures/figure3.png")
    assert result.returncode == 0, result.stderr
    figure = np.asarray(Image.open(tmp_path / "figures/figure3.png").convert("RGB"))
    assert len(np.unique(figure.reshape(-1, 3), axis=0)) > 20


def test_models_that_cannot_be_drawn_side_by_side_are_refused(rooms: Path, tmp_path: Path) -> None:
    models: dict[str, tuple[DownstreamTask, int]] = {
        "labels": (Segmentation(32, channels=4), 32),
        "wider": (Segmentation(32, channels=8), 32),
        "fewer": (Segmentation(31, channels=4), 32),
        "large": (Segmentation(32, channels=4), 64),
        "depth": (DepthEstimation(channels=8), 32),
        "classes": (LinearProbe(16), 32),
    }
    for name, (task, size) in models.items():
        model = DownstreamModel(task, {"rgb": Rgb()}, image_size=size, patch_size=8, width=32, depth=4, heads=2)
        save_downstream(model, model.state_dict(), tmp_path / name)

    def draw(*names: str, **options: Any) -> None:
        test = {"class_path": "Scenes", "init_args": {"folder": str(rooms / "test")}}
        runs = [str(tmp_path / name) for name in names]
        run("compare-predictions", {"runs": runs, "test": test, "output": str(tmp_path / "figure.png"), **options})

    for names, message in (
        (("labels", "depth"), "Expected models of one task, got semseg {'semseg': SemSeg(num_classes=32,"),
        (("labels", "wider", "fewer"), "as labels and semseg {'semseg': SemSeg(num_classes=31,"),
        (("labels", "large"), "Expected models of one size of images, got {'labels': 32, 'large': 64}. Choose one"),
        (("classes",), "Expected models that predict maps, got classes for linear-probe."),
        (("labels", "labels"), "Expected a label once, got 'labels' again for"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            draw(*names)
    draw("labels", "wider", "large", size=32)
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize(
    "task", ["semseg", *(pytest.param(task, marks=pytest.mark.slow) for task in ("linear-probe", "depth"))]
)
def test_two_processes_give_the_curve_of_one_with_twice_the_batch(
    task: str, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    # Ten held-out images in batches of two: in the last round one of the two processes has none.
    config = settings(task, drop_path=0.0)
    run("finetune-vision", config | {"output": str(tmp_path / "one")})
    file = write_config(config | {"output": str(tmp_path / "two")}, tmp_path / "config.yaml")
    result = call("finetune-vision", "--config", file, "--loop.batch_size", 2, processes=2)
    assert result.returncode == 0, result.stderr
    for ours, theirs in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert ours["risks"] == pytest.approx(theirs["risks"], rel=1e-4)
        # A pixel between two classes may fall to either side: of nine images of 1,024 pixels, a few.
        assert ours.get("scores", {}) == pytest.approx(theirs.get("scores", {}), abs=1e-3)
    assert len(read_results(tmp_path / "two")) == 1


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bf16": ("depth", {"device": {"precision": "bf16"}}),
    "windows": ("semseg", {"loop": {"accumulation": 2}}),
    "epochs": ("classification", {"loop": {"steps": None, "epochs": 2, "eval_every": None}}),
    "another size": ("semseg", {"size": 24}),
    "without mixing": (
        "classification",
        {"augmentation": {"class_path": "RandAugment", "init_args": {"mixup": 0.0, "cutmix": 0.0}}},
    ),
}


@pytest.mark.parametrize(("task", "changes"), VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains(
    task: str, changes: dict[str, Any], settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run("finetune-vision", settings(task, **changes) | {"output": str(tmp_path / "run")})
    assert all(np.isfinite(list(line["risks"].values())).all() for line in metrics(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # PyTorch's own
def test_compiled_run_has_the_metrics_of_the_plain_one(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    config = settings("semseg", drop_path=0.0)
    run("finetune-vision", config | {"output": str(tmp_path / "plain")})
    compiled = config["device"] | {"compile": True}
    run("finetune-vision", config | {"output": str(tmp_path / "compiled"), "device": compiled})
    for ours, theirs in zip(metrics(tmp_path / "compiled"), metrics(tmp_path / "plain"), strict=True):
        assert ours["risks"] == pytest.approx(theirs["risks"], rel=1e-4)


def test_without_a_pre_trained_model_and_without_test_images(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    shape = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 4, "heads": 2}
    config = settings("depth") | {"model": "none", "encoder": shape}
    del config["test"]
    run("finetune-vision", config | {"output": str(tmp_path / "run")})
    (result,) = read_results(tmp_path / "run")
    assert (result.pretrained, result.split) == ("none", "held_out")


def test_rooms_are_generated_before(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    generated = {"folder": str(folder), "train": 8, "held_out": 4, "test": 4, "size": 36, "domain": "shifted"}
    config = settings("classification") | {"rooms": generated, "output": str(tmp_path / "run")}
    run("finetune-vision", config | {"train": None, "held_out": None, "test": None})
    (result,) = read_results(tmp_path / "run")
    assert (result.split, result.data) == ("test", "generated rooms (shifted) at 32 px")
    manifest = json.loads((folder / "test/scenes.json").read_text())
    options = manifest["options"]
    assert (options["split"], options["domain"], options["pseudo_labels"]) == ("test", "shifted", False)
    assert options["seed"] != 0  # that of the rooms of pre-training


def test_rooms_that_nobody_would_read_are_refused(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    generated = {"folder": str(tmp_path / "shifted"), "domain": "shifted"}
    config = settings("depth") | {"rooms": generated, "output": str(tmp_path / "run")}
    with pytest.raises(ValueError, match="Expected rooms, or train and held_out, got both"):
        run("finetune-vision", config)
    assert not (tmp_path / "shifted").exists()
    with pytest.raises(ValueError, match="Expected images to train on and to choose the best model by: rooms, or"):
        run("finetune-vision", config | {"rooms": None, "held_out": None})


@pytest.mark.parametrize("name", ["classification", "semseg", "depth"])
def test_another_domain_of_rooms_is_two_options(name: str) -> None:
    options = options_of("finetune-vision")
    config = ["--config", str(CONFIGS_FOLDER / f"rooms-{name}.yaml"), "--model", "none", "--output", "run"]
    chosen = options.parse([*config, "--rooms.domain", "shifted", "--rooms.folder", "other"])
    assert (chosen.rooms.domain, str(chosen.rooms.folder), chosen.rooms.test) == ("shifted", "other", 500)
    assert (chosen.train, chosen.held_out, chosen.test) == (None, None, None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Noise in folders, in two classes, with labels of three."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog", "cat", "dog")):
            for modality, values in (
                ("rgb", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)),
                ("semseg", rng.integers(0, 3, (40, 48), dtype=np.uint8)),
            ):
                path = tmp_path / "images" / split / modality / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return tmp_path / "images"


def in_folders(config: dict[str, Any], images: Path) -> dict[str, Any]:
    for name, split in (("train", "train"), ("held_out", "val"), ("test", "val")):
        config[name] = {"class_path": "ImageFolders", "init_args": {"root": str(images), "split": split}}
    return config


SEMSEG = {"class_path": "Segmentation", "init_args": {"num_classes": 3, "channels": 4}}


def damage(path: Path) -> None:
    path.write_bytes(b"no image")


def relabel(path: Path) -> None:
    Image.fromarray(np.full((40, 48), 7, dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage, "semseg/cat/2.png cannot be read as an image"),
        (relabel, "semseg/cat/2.png holds no semseg map. Expected labels of 3 classes or void (255), got the label 7"),
    ],
    ids=["damaged", "out of range"],
)
def test_file_that_is_wrong_is_named(
    harm: Callable[[Path], None],
    message: str,
    settings: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
) -> None:
    harm(images / "train/semseg/cat/2.png")
    config = in_folders(settings("semseg", inputs=["rgb"]) | {"task": SEMSEG}, images)
    with pytest.raises(ValueError, match=re.escape(message)):
        run("finetune-vision", config | {"output": str(tmp_path / "run")})


def test_errors_name_what_does_not_fit(settings: Callable[..., dict[str, Any]], images: Path, tmp_path: Path) -> None:
    classes = {"task": {"class_path": "Classification", "init_args": {"num_classes": 3}}, "inputs": ["rgb"]}
    cases = [
        (
            in_folders(settings("classification") | classes, images),
            "Expected images of 3 classes, got ImageFolders with 2",
        ),
        (in_folders(settings("depth"), images), f"{images / 'train' / 'depth'}"),
        (settings("semseg", size=30), "Expected a size that is a multiple of the patch's 8, got 30."),
        (settings("semseg", augmentation=RAND_AUGMENT), "Expected Classification or LinearProbe with RandAugment"),
        (settings("depth", inputs=["edges"]), "Expected inputs that the model has learned to read, ['rgb', 'depth']"),
        (
            settings("depth", model="none", inputs=["edges"]),
            "Expected inputs among ['rgb', 'depth'] without a pre-trained",
        ),
        (settings("depth", model=str(tmp_path)), "Expected a run folder with a finished model"),
    ]
    for number, (config, message) in enumerate(cases):
        with pytest.raises(ValueError, match=re.escape(message)):
            run("finetune-vision", config | {"output": str(tmp_path / f"run{number}")})


def test_empty_split_is_named(settings: Callable[..., dict[str, Any]], images: Path, tmp_path: Path) -> None:
    config = in_folders(settings("semseg", inputs=["rgb"]) | {"task": SEMSEG}, images)
    config["test"]["init_args"]["split"] = "nowhere"
    with pytest.raises(ValueError, match="nowhere"):
        run("finetune-vision", config | {"output": str(tmp_path / "run")})


def test_class_folders_that_differ_between_splits_are_named(
    settings: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    (images / "val/rgb/dog").rename(images / "val/rgb/ant")
    probe = {"task": {"class_path": "LinearProbe", "init_args": {"num_classes": 2}}, "inputs": ["rgb"]}
    config = in_folders(settings("linear-probe") | probe, images)
    with pytest.raises(ValueError, match="got 'cat' in train and 'ant' in held_out as class 0"):
        run("finetune-vision", config | {"output": str(tmp_path / "run")})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_understood(path: Path) -> None:
    options = options_of("finetune-vision")
    settings = options.parse(["--config", str(path), "--model", "none", "--output", "run"])
    chosen = options.parser.instantiate(settings)
    side = chosen.size or 64
    chosen.augmentation.transform(side, 0)
    collate = TargetCollate({"rgb": Rgb()} | chosen.task.targets(), side, chosen.augmentation.mixing(chosen.task, 0))
    assert list(collate.missing) == ["rgb", *chosen.task.targets()]


@pytest.mark.realdata
@pytest.mark.skipif(
    "TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA names no folder with NYUv2 and Imagenette"
)
@pytest.mark.parametrize("name", ["nyu-semseg", "nyu-depth", "imagenette"])
def test_real_images_are_learned_from(name: str, tmp_path: Path) -> None:
    settings = yaml.safe_load((CONFIGS_FOLDER / f"{name}.yaml").read_text())
    settings["loop"] |= {"steps": 2, "epochs": None, "batch_size": 4, "eval_every": 2}
    settings["test"]["init_args"] |= {"part": [0.0, 0.02]}
    settings["held_out"]["init_args"] |= {"part": [0.9, 0.92]}
    shape = {"image_size": 224, "patch_size": 16, "width": 32, "depth": 4, "heads": 2}
    run("finetune-vision", settings | {"model": "none", "encoder": shape, "output": str(tmp_path / "run")})
    (result,) = read_results(tmp_path / "run")
    assert 0 <= result.value < 1
    assert result.data == f"{'imagenette' if name == 'imagenette' else 'nyuv2'} at 224 px"


@pytest.mark.parametrize("name", ["paper-s50", "paper-in1k"])
def test_pre_training_at_the_scale_of_the_paper_leaves_the_test_images_alone(name: str) -> None:
    pretraining = yaml.safe_load((CONFIGS_FOLDER.parent / f"{name}.yaml").read_text())
    fine_tuning = yaml.safe_load((CONFIGS_FOLDER / "paper-classification.yaml").read_text())
    for images in ("train", "held_out"):
        ours, theirs = (settings[images]["init_args"] for settings in (pretraining, fine_tuning))
        assert (ours["split"], ours["part"]) == (theirs["split"], theirs["part"])
    assert fine_tuning["test"]["init_args"]["split"] != "train"
