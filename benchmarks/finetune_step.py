"""Times a fine-tuning step of each downstream task, and weighs its memory.

A step is forward, backward and fused AdamW, of an encoder with blocks of width 192 (or another) in 12 layers, 224
pixels, patches of 16: classification with the linear head, its frozen probe, segmentation with the ConvNeXt head (40
classes), depth with the DPT head; and segmentation from colors and depth together. The encoder is random, as are the
maps.

Time: the minimum over the repetitions, after one to warm up; process time on the CPU with one thread, else wall time.
Memory: the peak over one step less what was there before, after a step of one image that makes the optimizer's state;
each in a process of its own; resident memory (VmHWM in /proc, Linux only), or PyTorch's allocations on CUDA. On CUDA
also a step in which every host synchronization is an error.

Run: ``OMP_NUM_THREADS=1 python benchmarks/finetune_step.py --threads 1``
"""

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from taskrobust import MultiTaskLoss, Uniform
from taskrobust.vision.downstream import Classification, DepthEstimation, DownstreamTask, LinearProbe, Segmentation
from taskrobust.vision.downstream.model import DownstreamModel
from taskrobust.vision.modalities import Depth, Modality, Rgb

SIDE = 224
HEADS = {192: 3, 384: 6, 768: 12}
INPUTS: dict[str, Modality] = {"rgb": Rgb(), "depth": Depth()}
ROWS: dict[str, tuple[DownstreamTask, tuple[str, ...]]] = {
    "classification": (Classification(1000), ("rgb",)),
    "linear probe": (LinearProbe(1000), ("rgb",)),
    "segmentation": (Segmentation(40), ("rgb",)),
    "segmentation, rgb + depth": (Segmentation(40), ("rgb", "depth")),
    "depth": (DepthEstimation(), ("rgb",)),
}
Batch = dict[str, Tensor]
Step = Callable[[Batch, bool], None]
"""A step on a batch, in bfloat16 autocast or in float32."""


def make_batch(images: int, inputs: int, device: str) -> Batch:
    """Random maps, all there, without unknown pixels."""
    batch = {
        "rgb": torch.randint(256, (images, 3, SIDE, SIDE), dtype=torch.uint8),
        "depth": 0.5 + 5 * torch.rand(images, 1, SIDE, SIDE),
        "semseg": torch.randint(40, (images, SIDE, SIDE), dtype=torch.uint8),
        "label": torch.randint(1000, (images,)),
        "present": torch.ones(images, inputs, dtype=torch.bool),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def make_model(row: str, width: int) -> DownstreamModel:
    task, inputs = ROWS[row]
    return DownstreamModel(task, {name: INPUTS[name] for name in inputs}, SIDE, width=width, heads=HEADS[width])


def make_step(row: str, width: int, device: str) -> Step:
    model = make_model(row, width).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    criterion = MultiTaskLoss([model.task.name], Uniform()).to(device)

    def step(batch: Batch, bf16: bool) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            outputs = model(**batch)
        criterion(outputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_of(row: str, width: int, images: int, bf16: bool, device: str, repeat: int) -> float:
    """The fastest of ``repeat`` steps, after one to warm up."""
    step, batch = make_step(row, width, device), make_batch(images, len(ROWS[row][1]), device)
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(repeat + 1):
        start = clock()
        step(batch, bf16)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        step(batch, bf16)
        torch.cuda.set_sync_debug_mode("default")
    return min(times[1:])


def added_memory(row: str, width: int, images: int, bf16: bool, device: str, threads: int) -> float:
    """Mebibytes that a step adds at its peak. For a fresh process."""
    torch.set_num_threads(threads)
    inputs = len(ROWS[row][1])
    step = make_step(row, width, device)
    batch = make_batch(images, inputs, device)
    step(make_batch(1, inputs, device), bf16)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(batch, bf16)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system and counts again when it is taken again
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = kibibytes("VmRSS")
    step(batch, bf16)
    return (kibibytes("VmHWM") - before) / 2**10


def kibibytes(field: str) -> int:
    """A field of this process's status."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, choices=HEADS, default=192, help="width of the encoder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of each step")
    parser.add_argument("--batch", type=int, default=8, help="images of a step")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    size = (arguments.width, arguments.batch)
    print(
        f"| step of D {size[0]}, batch {size[1]} | parameters, M | head's | fp32 ms | bf16 ms | fp32 MiB | bf16 MiB |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in ROWS:
        model = make_model(row, arguments.width)
        millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model, model.head)]
        cells = [f"{number:.2f}" for number in millions]
        cells += [
            f"{1e3 * seconds_of(row, *size, bf16, arguments.device, arguments.repeat):.0f}" for bf16 in (False, True)
        ]
        for bf16 in (False, True):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                job = process.submit(added_memory, row, *size, bf16, arguments.device, arguments.threads)
                cells.append(f"{job.result():.0f}")
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
