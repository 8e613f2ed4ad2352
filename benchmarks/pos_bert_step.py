"""Times a pre-training step of PoS-BERT beside Hugging Face's BertForPreTraining.

A table in float32 and in bfloat16 autocast: L4 H256, vocabulary 30,522, 16 sequences of 128 pieces, 15 % masked. The
rows are interleaved in one process; time is process time on the CPU and wall time on CUDA, the minimum over the
repetitions. On CUDA also BERT-base: tokens a second and model FLOPs utilization with and without torch.compile on the
trunk, each after a step in which every host synchronization is an error.

Run: ``OMP_NUM_THREADS=1 python benchmarks/pos_bert_step.py --threads 1 --repeat 5``
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from taskrobust import MultiTaskLoss, SoftmaxMinimax
from taskrobust.nlp.model import PosBertForPreTraining
from taskrobust.nlp.tagging.tagset import CLASSES

# isort: split
from transformers import (
    BertConfig,
    BertForPreTraining,
)  # after taskrobust, which mends a CUDA torchvision on a CPU torch

MASKED_SHARE = 0.15
Step = Callable[[], None]


def make_batch(config: BertConfig, sequences: int, length: int, device: str) -> dict[str, Tensor]:
    """Full sequences, random pieces, and as many masked positions in every batch."""
    generator = torch.Generator().manual_seed(0)
    pieces = sequences * length
    masked = torch.randperm(pieces, generator=generator)[: int(MASKED_SHARE * pieces)].sort().values
    input_ids = torch.randint(5, config.vocab_size, (sequences, length), generator=generator)
    batch = {
        "input_ids": input_ids,
        "token_type_ids": (torch.arange(length) > length // 2).long().expand(sequences, -1).contiguous(),
        "attention_mask": torch.ones(sequences, length, dtype=torch.long),
        "masked_positions": masked,
        "labels": input_ids.flatten()[masked],
        "classes": torch.randint(len(CLASSES), masked.shape, generator=generator),
        "next_sentence_label": torch.arange(sequences) % 2,
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def hugging_face_step(
    config: BertConfig, batch: dict[str, Tensor], bf16: bool, device: str, fused: bool, attention: str = "sdpa"
) -> Step:
    """The step that transformers offers: logits for every piece, one mean over the masked ones."""
    model = BertForPreTraining(config).to(device).train()
    model.set_attn_implementation(attention)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused or None)
    labels = torch.full_like(batch["input_ids"], -100)
    labels.view(-1)[batch["masked_positions"]] = batch["labels"]
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask", "next_sentence_label")}

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def pos_bert_step(
    config: BertConfig,
    batch: dict[str, Tensor],
    bf16: bool,
    device: str,
    compiled: bool = False,
    attention: str = "sdpa",
) -> Step:
    """Ours: logits at the masked positions, nine risks, minimax weights."""
    model = PosBertForPreTraining(config).to(device).train()
    model.set_attn_implementation(attention)
    criterion = MultiTaskLoss(CLASSES, SoftmaxMinimax(), auxiliary={"nsp": 1.0}).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if compiled:
        model.bert.compile()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            outputs = model(**batch)
        criterion(outputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fastest(steps: dict[str, Step], repeat: int, device: str) -> dict[str, float]:
    """Seconds of the fastest of ``repeat`` interleaved runs, after one to warm up."""
    clock = time.process_time if device == "cpu" else time.perf_counter
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


def compare_with_hugging_face(device: str, repeat: int) -> None:
    config = BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    batch = make_batch(config, sequences=16, length=128, device=device)
    ours = "PosBertForPreTraining, nine risks, minimax, fused AdamW"
    columns = []
    for bf16 in (False, True):
        steps = {
            "HF BertForPreTraining(labels), AdamW": hugging_face_step(config, batch, bf16, device, fused=False),
            "HF BertForPreTraining(labels), fused AdamW": hugging_face_step(config, batch, bf16, device, fused=True),
            "HF BertForPreTraining(labels), fused AdamW, eager attention": hugging_face_step(
                config, batch, bf16, device, fused=True, attention="eager"
            ),
            ours: pos_bert_step(config, batch, bf16, device),
            "the same, eager attention (what pretrain-bert takes in bf16 on a CPU)": pos_bert_step(
                config, batch, bf16, device, attention="eager"
            ),
        }
        columns.append(fastest(steps, repeat, device))
    print("| step of L4 H256 V30522 B16 S128 | fp32 ms | times ours | bf16 ms | times ours |")
    print("|---|---|---|---|---|")
    for name in columns[0]:
        cells = [f"{column[name] * 1e3:.0f} | {column[name] / column[ours]:.2f}" for column in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def bert_base_throughput(repeat: int, sequences: int, length: int, peak_tflops: float) -> None:
    """Has not run yet: written on a machine without CUDA."""
    config = BertConfig()
    batch = make_batch(config, sequences, length, "cuda")
    with FlopCounterMode(display=False) as counter:
        pos_bert_step(config, batch, True, "cuda")()
    print("\n| BERT-base, bf16 | ms | tokens/s | MFU |\n|---|---|---|---|")
    for compiled in (False, True):
        step = pos_bert_step(config, batch, True, "cuda", compiled)
        step()
        torch.cuda.set_sync_debug_mode("error")
        step()
        torch.cuda.set_sync_debug_mode("default")
        seconds = fastest({"step": step}, repeat, "cuda")["step"]
        utilization = counter.get_total_flops() / seconds / (peak_tflops * 1e12)
        name = "trunk compiled" if compiled else "eager"
        print(f"| {name} | {seconds * 1e3:.1f} | {sequences * length / seconds:,.0f} | {utilization:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeat", type=int, default=5, help="timed runs of each step")
    parser.add_argument("--sequences", type=int, default=256, help="batch of BERT-base, CUDA only")
    parser.add_argument("--length", type=int, default=128, help="pieces of a sequence of BERT-base, CUDA only")
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="of the GPU in dense bf16; 989 is H100 and H200"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    compare_with_hugging_face(arguments.device, arguments.repeat)
    if arguments.device == "cuda":
        bert_base_throughput(arguments.repeat, arguments.sequences, arguments.length, arguments.peak_tflops)


if __name__ == "__main__":
    main()
