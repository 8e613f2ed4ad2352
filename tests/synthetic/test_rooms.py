import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.tv_tensors import TVTensor

from taskrobust.synthetic.rooms import LABELS, OBJECTS, ROOMS, ScenesConfig, generate_scenes, prepare_scenes, store
from taskrobust.synthetic.rooms.guesses import pseudo_labels
from taskrobust.synthetic.rooms.primitives import Material, Primitive, Shape, meet, surface, turned
from taskrobust.synthetic.rooms.render import Rendering, render
from taskrobust.synthetic.rooms.rooms import Domain, Split, generator_of, make_scene
from taskrobust.synthetic.rooms.store import RECORDS
from taskrobust.training.data import Key
from taskrobust.vision.data import MaeCollate, Scenes
from taskrobust.vision.modalities import Depth, NormRgb, Rgb, SemSeg
from taskrobust.vision.transforms.crops import CenterCrop, JointCrop

MODALITIES = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg(num_classes=len(LABELS)), "norm_rgb": NormRgb()}


def rendering(index: int, size: int = 32, split: Split = "train", domain: Domain = "source") -> Rendering:
    generator = generator_of(split, index, domain)
    return render(make_scene(generator, domain), size, generator)


def whole(maps: Any, key: Key) -> dict[str, TVTensor]:
    return dict(maps)


# Rays

UNIT = np.array([0.5, 1.0, 2.0], np.float32)


@pytest.mark.parametrize("shape", Shape)
def test_rays_meet_primitives_where_a_march_along_them_does(shape: Shape) -> None:
    generator = np.random.default_rng(0)
    origin = np.array([0.3, 0.2, -6.0], np.float32)
    rays = np.stack([*generator.uniform(-0.4, 0.4, (2, 20, 20)), np.ones((20, 20))]).astype(np.float32)
    meeting = meet(shape, UNIT, origin, rays)

    steps = np.linspace(0.05, 12, 6000, dtype=np.float32)
    scaled = (origin[:, None, None, None] + rays[..., None] * steps) / UNIT[:, None, None, None]
    inside = {
        Shape.BOX: (np.abs(scaled) < 1).all(0),
        Shape.ELLIPSOID: (scaled**2).sum(0) < 1,
        Shape.CYLINDER: (scaled[0] ** 2 + scaled[2] ** 2 < 1) & (np.abs(scaled[1]) < 1),
    }[shape]
    deep = inside.sum(-1) > 10  # rays that graze it may pass between the steps
    assert 20 < deep.sum() < 400
    assert meeting.hit[deep].all()
    assert not meeting.hit[~inside.any(-1)].any() or (meeting.hit & ~inside.any(-1)).sum() < 5
    np.testing.assert_allclose(meeting.near[deep], steps[inside.argmax(-1)][deep], atol=4e-3)

    met = surface(shape, UNIT, origin, rays, meeting, meeting.hit)
    np.testing.assert_allclose((met.normal**2).sum(0), 1, atol=1e-4)
    assert ((met.normal * rays[:, meeting.hit]).sum(0) < 1e-3).all()  # they face the camera


def test_turning_back_gives_the_same_vectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    np.testing.assert_allclose(turned(-0.7, turned(0.7, vectors)), vectors, atol=1e-6)


def test_depth_is_planar_and_exact() -> None:
    """A wall straight ahead has the same depth everywhere, though its corners are farther from the camera."""
    generator = generator_of("train", 0)
    scene = make_scene(generator)
    camera = scene.camera._replace(yaw=0.0, pitch=0.0)
    empty = render(scene._replace(primitives=[], camera=camera), 64, generator)
    ahead = empty.depth[28:36, 28:36]
    expected = 1000 * (scene.half[2] - camera.position[2])
    np.testing.assert_allclose(ahead, expected, atol=1)

    plain = Material(0, np.ones(3, np.float32), 1.0)
    place = camera.position + np.array([0, 0, 2.0], np.float32)
    box = Primitive(Shape.BOX, LABELS.index("box"), place, np.full(3, 0.5, np.float32), 0.0, plain)
    shown = render(scene._replace(primitives=[box], camera=camera), 64, generator)
    assert (shown.semseg[30:34, 30:34] == LABELS.index("box")).all()
    np.testing.assert_allclose(shown.depth[30:34, 30:34], 1500, atol=1)


# Rooms


def test_a_scene_is_a_function_of_split_domain_and_number() -> None:
    again = rendering(3)
    assert all((a == b).all() for a, b in zip(again, rendering(3), strict=True))
    others = (rendering(4), rendering(3, split="val"), rendering(3, domain="shifted"))
    assert all((again.rgb != other.rgb).any() for other in others)


def test_labels_have_a_long_tail_and_classes_are_balanced() -> None:
    scenes = []
    pixels = np.zeros(len(LABELS))
    for index in range(400):
        generator = generator_of("train", index)
        scenes.append(make_scene(generator))
        pixels += np.bincount(render(scenes[-1], 24, generator).semseg.ravel(), minlength=len(LABELS))
    share = pixels / pixels.sum()
    assert share[[LABELS.index(name) for name in ("wall", "floor", "ceiling")]].sum() == pytest.approx(0.71, abs=0.03)
    assert 7 <= (share <= 0.003).sum() <= 12
    assert (pixels > 0).all()
    classes = np.bincount([scene.label for scene in scenes], minlength=len(OBJECTS))
    assert classes.max() / 400 < 0.11
    assert (classes > 10).all()
    assert {scene.room for scene in scenes} == set(range(len(ROOMS)))
    assert np.mean([len(scene.primitives) for scene in scenes]) == pytest.approx(34, abs=3)


def test_object_looked_at_is_in_the_picture() -> None:
    names = {"box": ("box",), "lamp": ("lamp",)}
    seen = []
    for index in range(60):
        generator = generator_of("train", index)
        scene = make_scene(generator)
        name = OBJECTS[scene.label]
        shown = render(scene, 48, generator).semseg[8:40, 8:40]
        seen.append(any((shown == LABELS.index(label)).any() for label in names.get(name, (name,))))
    assert np.mean(seen) > 0.95


def test_depth_is_unknown_on_windows_and_mirrors_and_within_range_elsewhere() -> None:
    unknown = 0
    for index in range(30):
        shown = rendering(index)
        glass = np.isin(shown.semseg, [LABELS.index("window"), LABELS.index("mirror")])
        assert (shown.depth[glass] == 0).all()
        assert ((shown.depth[~glass] >= 300) & (shown.depth[~glass] <= 10000)).all()
        unknown += glass.sum()
    assert unknown > 0


def test_shifted_domain_is_darker_and_deeper() -> None:
    source, shifted = ([rendering(index, domain=domain) for index in range(60)] for domain in ("source", "shifted"))
    assert np.mean([s.rgb.mean() for s in shifted]) < 0.8 * np.mean([s.rgb.mean() for s in source])
    assert np.mean([s.depth.mean() for s in shifted]) > 1.1 * np.mean([s.depth.mean() for s in source])


def test_pseudo_labels_differ_at_outlines_and_in_scale() -> None:
    agreement, correlation = [], []
    for index in range(30):
        true = rendering(index, 64)
        guessed = pseudo_labels(true, np.random.default_rng(index))
        assert (guessed.rgb == true.rgb).all()
        assert (guessed.depth > 0).all()
        agreement.append((guessed.semseg == true.semseg).mean())
        known = true.depth > 0
        correlation.append(np.corrcoef(guessed.depth[known], true.depth[known])[0, 1])
    assert 0.7 < np.mean(agreement) < 0.97
    assert min(correlation) > 0.9


# Folders


def test_folder_gives_samples_that_make_batches_of_the_model(tmp_path: Path) -> None:
    generate_scenes(tmp_path / "train", "train", 6, size=36)
    data = Scenes(MODALITIES, JointCrop(32), folder=tmp_path / "train")
    assert len(data) == 6
    assert data.classes == list(OBJECTS)
    batch = MaeCollate(MODALITIES, 32)(data.__getitems__([(0, 0), (5, 2)]))
    assert {name: list(value.shape) for name, value in batch.items()} == {
        "rgb": [2, 3, 32, 32],
        "depth": [2, 1, 32, 32],
        "semseg": [2, 8, 8],
        "present": [2, 3],
        "mask_keys": [2],
    }
    with pytest.raises(IndexError, match="Expected an index from 0 to 5, got 6"):
        data.__getitems__([(6, 0)])


def test_samples_are_the_rendered_scenes(tmp_path: Path) -> None:
    generate_scenes(tmp_path / "val", "val", 3, size=32)
    ((_, sample),) = Scenes(MODALITIES, whole, folder=tmp_path / "val").__getitems__([(2, 0)])
    true = rendering(2, 32, "val")
    assert (sample["rgb"].permute(1, 2, 0).numpy() == true.rgb).all()
    np.testing.assert_allclose(sample["depth"][0].numpy(), true.depth / 1000, rtol=1e-6)
    assert (sample["semseg"].numpy() == true.semseg[2::4, 2::4]).all()
    assert sample["label"] == make_scene(generator_of("val", 2)).label


def test_more_rooms_are_more_of_the_same_whoever_generates_them(tmp_path: Path) -> None:
    generate_scenes(tmp_path / "few", "train", 5, size=16)
    generate_scenes(tmp_path / "many", "train", 260, size=16, num_proc=2)
    few, many = (np.load(tmp_path / name / RECORDS) for name in ("few", "many"))
    assert (few == many[:5]).all()
    assert all(record["rgb"].any() for record in many)


def test_generation_that_was_killed_goes_on(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from taskrobust.synthetic.rooms import generate_scenes
generate_scenes(Path({str(tmp_path / "killed")!r}), "train", 1500, size=16)
"""
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    finished = tmp_path / "killed/finished.txt"
    deadline = time.monotonic() + 60
    while not (finished.exists() and finished.read_text().count("\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(ValueError, match=r"Expected generated rooms in .*, got an unfinished folder"):
        Scenes(MODALITIES, CenterCrop(16), folder=tmp_path / "killed")
    with finished.open("a") as torn:
        torn.write("100")
    before = np.load(tmp_path / "killed" / RECORDS)[:500]
    generate_scenes(tmp_path / "killed", "train", 1500, size=16)
    records = np.load(tmp_path / "killed" / RECORDS)
    assert (records[:500] == before).all()
    assert all(record["rgb"].any() for record in records)
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [RECORDS, "scenes.json"]


def test_a_full_disk_is_an_error_and_the_next_call_starts_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rooms"

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match=rf"No space left on device: '{folder / RECORDS}'"):
            generate_scenes(folder, "train", 2, size=16)
    assert [path.name for path in folder.iterdir()] == ["scenes.json"]  # not complete
    generate_scenes(folder, "train", 2, size=16)
    assert (folder / RECORDS).stat().st_blocks * 512 >= (folder / RECORDS).stat().st_size
    assert len(Scenes(MODALITIES, CenterCrop(16), folder=folder)) == 2


def test_rooms_that_were_killed_before_their_records_had_a_place_are_generated(tmp_path: Path) -> None:
    generate_scenes(tmp_path / "whole", "train", 2, size=16)
    folder = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", folder)
    manifest = json.loads((folder / "scenes.json").read_text())
    (folder / "scenes.json").write_text(json.dumps({**manifest, "complete": False}))
    (folder / RECORDS).rename(folder / f".{RECORDS}.unfinished")

    generate_scenes(folder, "train", 2, size=16)

    assert sorted(path.name for path in folder.iterdir()) == [RECORDS, "scenes.json"]
    assert (folder / RECORDS).read_bytes() == (tmp_path / "whole" / RECORDS).read_bytes()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_in_a_process_ends_the_others_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    begun = []

    def write_chunk(folder: Path, wanted: dict[str, Any], chunk: range) -> range:
        begun.append(chunk.start)
        if chunk.start == 250:
            raise error
        time.sleep(0.05)
        return chunk

    monkeypatch.setattr(store, "ProcessPoolExecutor", lambda processes, _: ThreadPoolExecutor(processes))
    monkeypatch.setattr(store, "_write_chunk", write_chunk)
    with pytest.raises(error):
        generate_scenes(tmp_path / "rooms", "train", 250 * 40, size=1, num_proc=2)
    assert len(begun) < 10
    assert (tmp_path / "rooms/finished.txt").read_text() == "0\n"


def test_folder_of_other_rooms_is_refused(tmp_path: Path) -> None:
    generate_scenes(tmp_path / "rooms", "train", 2, size=16)
    generate_scenes(tmp_path / "rooms", "train", 2, size=16)  # is there
    with pytest.raises(ValueError, match=r"size is 16 there and 32 here\. Choose another folder"):
        generate_scenes(tmp_path / "rooms", "train", 2, size=32)
    with pytest.raises(ValueError, match=r"Expected modalities among \['rgb', 'depth', 'semseg'\].*got \['normals'\]"):
        Scenes({"normals": Rgb()}, CenterCrop(16), folder=tmp_path / "rooms")


def test_second_process_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ScenesConfig(folder=tmp_path / "rooms", train=2, held_out=1, size=16)
    monkeypatch.setenv("RANK", "1")
    waiting = multiprocessing.get_context("spawn").Process(target=prepare_scenes, args=(config,))
    waiting.start()
    monkeypatch.setenv("RANK", "0")
    prepare_scenes(config)
    waiting.join(60)
    assert waiting.exitcode == 0
    assert len(Scenes(MODALITIES, CenterCrop(16), folder=tmp_path / "rooms/held-out")) == 1
