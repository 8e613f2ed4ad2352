"""Times the loading of images and their maps from folders and from shards, beside decoding alone.

Two tables. The first: samples a second, with and without depth and semantic maps, the best of the repetitions: of the
process time of one loading process, and of wall time with two worker processes. "Decoding" is the floor: the files'
bytes are in memory, Pillow decodes them and the result is thrown away. The second: where the process time goes,
microseconds a sample, from folders.

Run: ``OMP_NUM_THREADS=1 python benchmarks/image_loading.py``, on the NYUv2 images of ``$TASKROBUST_DATA`` (795 of 320 x
240), or on generated images where that is unset.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from taskrobust.commands.shards import shards as pack_shards
from taskrobust.training.data import GlobalBatchSampler, Key
from taskrobust.vision.data import ImageFolders, ImageMaps, ImageShards, MaeCollate
from taskrobust.vision.modalities import Depth, Modality, Rgb, SemSeg
from taskrobust.vision.transforms.crops import JointCrop

MODALITIES: dict[str, Modality] = {
    "rgb": Rgb(),
    "depth": Depth(),
    "semseg": SemSeg(num_classes=40, reduce_zero_label=True),
}
CHOICES = (("rgb",), ("rgb", "depth"), ("rgb", "semseg"), ("rgb", "depth", "semseg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="side of the crops")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=24, help="batches in a repetition")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()

    with tempfile.TemporaryDirectory() as scratch:
        root = images(Path(scratch))
        pack_shards(root / "train", Path(scratch) / "shards")
        rows, profiles = [], {}
        for names in CHOICES:
            modalities = {name: MODALITIES[name] for name in names}
            crop, collate = JointCrop(arguments.size), MaeCollate(modalities, arguments.size)
            folders = ImageFolders(modalities, crop, root=root)
            shards = ImageShards(modalities, crop, folder=Path(scratch) / "shards")
            encoded = [list(contents(folders, index)) for index in range(min(256, len(folders)))]
            speeds = [best(partial(decode, encoded), time.process_time, arguments.repeat)]
            for workers, clock in ((0, time.process_time), (arguments.workers, time.perf_counter)):
                for data in (folders, shards):
                    sampler = GlobalBatchSampler(len(data), arguments.batch_size, seed=0)
                    batches = iter(DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=workers))  # type: ignore[arg-type, var-annotated]
                    next(batches)  # the workers are there
                    speeds.append(best(partial(load, batches, arguments.batches), clock, arguments.repeat))
            rows.append(("+".join(names), *speeds))
            profiles["+".join(names)] = profile(folders, collate, arguments.batch_size, arguments.repeat)

    several = f"{arguments.workers} workers, wall"
    print(f"\n{arguments.size} px crops, batches of {arguments.batch_size}, samples/s")
    print(f"| maps | decoding | folders | shards | folders, {several} | shards, {several} |\n|---|{'---:|' * 5}")
    for name, *speeds in rows:
        print(f"| {name} | {' | '.join(f'{speed:.0f}' for speed in speeds)} |")
    print("\nµs of process time a sample")
    stages = list(profiles["rgb"])
    print(f"| maps | {' | '.join(stages)} | sum |\n|---|{'---:|' * (len(stages) + 1)}")
    for name, times in profiles.items():
        print(f"| {name} | {' | '.join(f'{times[stage]:.0f}' for stage in stages)} | {sum(times.values()):.0f} |")


def images(scratch: Path) -> Path:
    """The folder of NYUv2, or of generated images of its size."""
    if "TASKROBUST_DATA" in os.environ:
        return Path(os.environ["TASKROBUST_DATA"]) / "nyuv2"
    rng = np.random.default_rng(0)
    for number in range(400):
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize((320, 240))
        depth = np.asarray(coarse)[:, :, 0].astype(np.uint16) * 39
        labels = Image.fromarray(rng.integers(0, 41, (6, 8), dtype=np.uint8)).resize((320, 240), 0)
        for name, image in {"rgb": coarse, "depth": Image.fromarray(depth), "semseg": labels}.items():
            path = scratch / f"generated/train/{name}/all/{number:04d}.{'jpg' if name == 'rgb' else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return scratch / "generated"


def contents(data: ImageMaps, index: int) -> Iterator[bytes]:
    return (Path(str(file.source)).read_bytes() for file in data.files(index))


def decode(samples: list[list[bytes]]) -> int:
    for files in samples:
        for content in files:
            Image.open(BytesIO(content)).load()
    return len(samples)


def load(batches: Iterator[dict[str, Tensor]], number: int) -> int:
    """Loads batches and returns the number of samples."""
    return sum(len(next(batches)["present"]) for _ in range(number))


def best(work: Callable[[], int], clock: Callable[[], float], repeat: int) -> float:
    """The most samples a second."""
    speeds = []
    for _ in range(repeat):
        start = clock()
        samples = work()
        speeds.append(samples / (clock() - start))
    return max(speeds)


def profile(data: ImageMaps, collate: MaeCollate, batch_size: int, repeat: int) -> dict[str, float]:
    """Microseconds a sample in each stage of loading a batch, the least of the repetitions."""
    passes = [profile_once(data, collate, [(index, 0) for index in range(batch_size)]) for _ in range(repeat)]
    return {stage: 1e6 * min(times[stage] for times in passes) / batch_size for stage in passes[0]}


def profile_once(data: ImageMaps, collate: MaeCollate, keys: list[Key]) -> dict[str, float]:
    seconds = dict.fromkeys(("open", "decompress", "to tensors", "crop", "pack", "collate"), 0.0)
    clock = time.process_time()

    def stop(stage: str) -> None:
        nonlocal clock
        now = time.process_time()
        seconds[stage] += now - clock
        clock = now

    samples = []
    for key in keys:
        opened = {file.modality: Image.open(file.source) for file in data.files(key[0])}
        stop("open")
        for image in opened.values():
            image.load()
        stop("decompress")
        maps = {name: data._decode(name, image) for name, image in opened.items()}
        stop("to tensors")
        crops = data.transform(maps, key)
        stop("crop")
        samples.append((key, {name: data.modalities[name].pack(crop) for name, crop in crops.items()}))
        stop("pack")
    collate(samples)
    stop("collate")
    return seconds


if __name__ == "__main__":
    main()
