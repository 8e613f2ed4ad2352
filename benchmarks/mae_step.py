"""Times a pre-training step of Multi-Modal Mask MAE beside a straightforward implementation, and weighs its memory.

Ours is MultiModalMae with MultiTaskLoss (minimax) and fused AdamW; the other, in ``straightforward_mae.py``, the same
model and losses with plain AdamW. With copied weights and the same masks, losses and gradients are compared first, and
a difference ends the script. The straightforward model is given its maps prepared; ours prepares them within its step.

Time: tables in float32 and in bfloat16 autocast, the rows interleaved in one process, the minimum over the repetitions;
process time on the CPU with one thread, else wall time. Memory (--memory): the peak over one step less what was there
before, after a step of one image that makes the optimizer's state; each in a process of its own, with one thread;
resident memory of the process (VmHWM in /proc, Linux only), or PyTorch's allocations on CUDA. On CUDA also ViT-B:
images a second and model FLOPs utilization with and without torch.compile on the encoder, after a step in which every
host synchronization is an error.

Run: ``OMP_NUM_THREADS=1 python benchmarks/mae_step.py --threads 1 --repeat 5`` and
``OMP_NUM_THREADS=1 python benchmarks/mae_step.py --memory``
"""

import argparse
import ctypes
import gc
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from straightforward_mae import StraightforwardMae, minimax_total, prepared_maps, random_mask, task_losses
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from taskrobust import MultiTaskLoss, SoftmaxMinimax
from taskrobust.vision.mae.model import MultiModalMae
from taskrobust.vision.modalities import Depth, Modality, NormRgb, Rgb, SemSeg

THREE = ("rgb", "depth", "semseg")
FOUR = (*THREE, "norm_rgb")
SIZES = {
    192: {"width": 192, "heads": 3, "decoder_width": 128},
    384: {"width": 384, "heads": 6, "decoder_width": 256},
    768: {"width": 768, "heads": 12, "decoder_width": 256},
}
OURS = "MultiModalMae, minimax, fused AdamW"
OURS_EFFICIENT = "the same, memory_efficient"
STRAIGHT = "straightforward, AdamW"
STRAIGHT_FUSED = "straightforward, fused AdamW"
Batch = dict[str, Tensor]
Row = tuple[str, int, bool]
"""Name, number of tasks, whether in bfloat16."""
Step = Callable[[Batch, bool], None]
"""A step on a batch (for the straightforward model: on prepared maps), in bfloat16 autocast or in float32."""


def make_batch(images: int, device: str) -> Batch:
    """Random maps, all there, without unknown pixels."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "rgb": torch.randint(256, (images, 3, 224, 224), generator=generator, dtype=torch.uint8),
        "depth": 0.5 + 5 * torch.rand(images, 1, 224, 224, generator=generator),
        "semseg": torch.randint(133, (images, 56, 56), generator=generator, dtype=torch.uint8),
        "present": torch.ones(images, 3, dtype=torch.bool),
        "mask_keys": torch.randint(-(2**62), 2**62, (images,), generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def our_model(tasks: tuple[str, ...], width: int, device: str, memory_efficient: bool = False) -> MultiModalMae:
    modalities: dict[str, Modality] = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg(), "norm_rgb": NormRgb()}
    named = {task: modalities[task] for task in tasks}
    return MultiModalMae(named, **SIZES[width], memory_efficient=memory_efficient).to(device)


def straightforward_model(tasks: tuple[str, ...], width: int, device: str) -> StraightforwardMae:
    """Starts from the weights of ours, so that the values that it computes with are alike."""
    model = StraightforwardMae(tasks, **SIZES[width]).to(device)
    model.load_weights_of(our_model(tasks, width, device).state_dict())
    return model


def our_step(model: MultiModalMae) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    criterion = MultiTaskLoss(model.tasks, SoftmaxMinimax(alpha=1.0, relative=False))
    criterion.to(next(model.parameters()).device)

    def step(batch: Batch, bf16: bool) -> None:
        with torch.autocast(batch["rgb"].device.type, torch.bfloat16, enabled=bf16):
            outputs = model(**batch)
        criterion(outputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def straightforward_step(model: StraightforwardMae, fused: bool = False) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused or None)

    def step(maps: Batch, bf16: bool) -> None:
        device = maps["rgb"].device.type
        mask = random_mask(len(maps["rgb"]), device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            predictions = model(maps, mask)
        minimax_total(task_losses(predictions, maps, mask)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def check_same(width: int, device: str) -> None:
    """Ends the script if losses or gradients differ between the two implementations."""
    ours = our_model(FOUR, width, device)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # initial zeros would hide differences
    other = StraightforwardMae(FOUR, **SIZES[width]).to(device)
    other.load_weights_of(ours.state_dict())
    batch = make_batch(2, device)
    maps, mask = prepared_maps(batch), ours.budget(batch["mask_keys"], batch["present"], ours.patches).masked.flatten(1)

    losses, expected = ours(**batch).losses, task_losses(other(maps, mask), maps, mask)
    torch.testing.assert_close(losses.sums / losses.counts, expected, rtol=1e-5, atol=0)
    MultiTaskLoss(FOUR, SoftmaxMinimax(alpha=1.0, relative=False)).to(device)(losses).backward()
    minimax_total(expected).backward()
    gradients = dict(other.named_parameters())
    from_ours = StraightforwardMae(FOUR, **SIZES[width]).to(device)
    from_ours.load_weights_of({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    difference = largest = 0.0
    for name, gradient in from_ours.named_parameters():
        truth = gradients[name].grad
        assert truth is not None
        difference = max(difference, (gradient - truth).abs().max().item())
        largest = max(largest, truth.abs().max().item())
    assert difference <= 1e-5 * largest, f"Expected the same gradients, got {difference:.2g} beside {largest:.2g}."
    values = ", ".join(f"{task} {loss:.6f}" for task, loss in zip(FOUR, expected.tolist(), strict=True))
    print(f"\nThe same with copied weights and masks: {values}; gradients within {difference / largest:.0e}.")


def fastest(steps: dict[Row, Callable[[], None]], repeat: int, device: str) -> dict[Row, float]:
    """Seconds of the fastest of ``repeat`` interleaved runs, after one to warm up."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    seconds = dict.fromkeys(steps, float("inf"))
    for round_ in range(repeat + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_:
                seconds[name] = min(seconds[name], clock() - start)
    return seconds


def compare_times(width: int, images: int, repeat: int, device: str) -> None:
    batch = make_batch(images, device)
    maps = prepared_maps(batch)
    steps: dict[Row, Callable[[], None]] = {}
    for tasks in (THREE, FOUR):
        ours, straight = our_model(tasks, width, device), straightforward_model(tasks, width, device)
        rows = {
            STRAIGHT: partial(straightforward_step(straight), maps),
            STRAIGHT_FUSED: partial(straightforward_step(straight, fused=True), maps),
            OURS: partial(our_step(ours), batch),
            OURS_EFFICIENT: partial(our_step(our_model(tasks, width, device, memory_efficient=True)), batch),
        }
        for (name, step), bf16 in itertools.product(rows.items(), (False, True)):
            steps[name, len(tasks), bf16] = partial(step, bf16)
    seconds = fastest(steps, repeat, device)
    print(f"\n| step of D {width}, batch {images} | tasks | fp32 ms | times ours | bf16 ms | times ours |")
    print("|---|---:|---:|---:|---:|---:|")
    for tasks, name in itertools.product((3, 4), (STRAIGHT, STRAIGHT_FUSED, OURS, OURS_EFFICIENT)):
        cells = [
            f"{seconds[name, tasks, bf16] * 1e3:.0f} | {seconds[name, tasks, bf16] / seconds[OURS, tasks, bf16]:.2f}"
            for bf16 in (False, True)
        ]
        print(f"| {name} | {tasks} | {' | '.join(cells)} |")
    three, four = (seconds[STRAIGHT, tasks, False] / seconds[OURS, 3, True] for tasks in (3, 4))
    print(f"\nOurs in bf16 with three tasks beside {STRAIGHT}, in fp32 with three: {three:.2f}, with four: {four:.2f}.")


def added_memory(name: str, tasks: tuple[str, ...], bf16: bool, width: int, images: int, device: str) -> float:
    """Mebibytes that a step adds at its peak. For a fresh process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    first, batch = make_batch(1, device), make_batch(images, device)
    if name == STRAIGHT:
        step = straightforward_step(straightforward_model(tasks, width, device))
        first, batch = prepared_maps(first), prepared_maps(batch)
    else:
        step = our_step(our_model(tasks, width, device, memory_efficient=name == OURS_EFFICIENT))
    step(first, bf16)
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


def compare_memory(width: int, images: int, device: str) -> None:
    print(
        f"\n| a step of D {width}, batch {images}, adds | tasks | fp32 MiB | of straightforward | bf16 MiB | of same |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    added: dict[Row, float] = {}
    for tasks, name in itertools.product((THREE, FOUR), (STRAIGHT, OURS, OURS_EFFICIENT)):
        cells = []
        for bf16 in (False, True):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                mebibytes = process.submit(added_memory, name, tasks, bf16, width, images, device).result()
            added[name, len(tasks), bf16] = mebibytes
            cells.append(f"{mebibytes:.0f} | {mebibytes / added[STRAIGHT, len(tasks), bf16]:.2f}")
        print(f"| {name} | {len(tasks)} | {' | '.join(cells)} |", flush=True)
    three = added[OURS_EFFICIENT, 3, True] / added[STRAIGHT, 3, False]
    print(f"\nOurs in bf16, memory_efficient, with three tasks beside {STRAIGHT}, in fp32 with three: {three:.2f}.")


def vit_b_throughput(repeat: int, images: int, peak_tflops: float) -> None:
    """Has not run yet: written on a machine without CUDA."""
    batch = make_batch(images, "cuda")
    with FlopCounterMode(display=False) as counter:
        our_step(our_model(THREE, 768, "cuda"))(batch, True)
    print(f"\n| ViT-B, three tasks, bf16, batch {images} | ms | images/s | MFU |\n|---|---:|---:|---:|")
    for compiled in (False, True):
        model = our_model(THREE, 768, "cuda")
        if compiled:
            model.encoder.compile()
        step = partial(our_step(model), batch, True)
        step()
        torch.cuda.set_sync_debug_mode("error")
        step()
        torch.cuda.set_sync_debug_mode("default")
        name = "encoder compiled" if compiled else "eager"
        (seconds,) = fastest({(name, 3, True): step}, repeat, "cuda").values()
        utilization = counter.get_total_flops() / seconds / (peak_tflops * 1e12)
        print(f"| {name} | {seconds * 1e3:.1f} | {images / seconds:,.0f} | {utilization:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="widths of the encoder"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeat", type=int, default=5, help="timed runs of each step")
    parser.add_argument("--batch", type=int, default=8, help="images of a timed step")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    parser.add_argument("--memory-batch", type=int, default=32, help="images of a step whose memory is measured")
    parser.add_argument("--throughput-batch", type=int, default=256, help="images of a step of ViT-B, CUDA only")
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="of the GPU in dense bf16; 989 is H100 and H200"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # as it is for matrix products: float32 throughout
    for width in arguments.sizes:
        if arguments.memory:
            compare_memory(width, arguments.memory_batch, arguments.device)
        else:
            check_same(width, arguments.device)
            compare_times(width, arguments.batch, arguments.repeat, arguments.device)
    if arguments.device == "cuda" and not arguments.memory:
        vit_b_throughput(arguments.repeat, arguments.throughput_batch, arguments.peak_tflops)


if __name__ == "__main__":
    main()
