"""Damaged files: every refusal must be one ValueError that names the file.

Each try damages a small valid file, as bytes or, for JSON and YAML, as a tree, and reads it as the commands do.
Outcomes:

    read        it was read, as it was or as other valid data
    refused     a ValueError with the name of the file or of its folder, or a skipped line with a warning
    unnamed     another message
    traceback   another kind of exception

Exits with 1 if there is an unnamed one or a traceback.

Run: ``OMP_NUM_THREADS=1 python benchmarks/fuzz_readers.py --tries 10000``
"""

import argparse
import copy
import io
import json
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from fuzz_configurations import NONSENSE, change_bytes, change_value
from PIL import Image

from taskrobust._io.tables import markdown_table
from taskrobust.nlp.corpus.build import CorpusConfig, prepare
from taskrobust.nlp.corpus.sources import read_documents
from taskrobust.nlp.corpus.store import Corpus
from taskrobust.nlp.glue.files import read_split
from taskrobust.nlp.glue.tasks import GLUE
from taskrobust.report.report import make_report
from taskrobust.report.runs import find_sources
from taskrobust.training.results import Result, write_results
from taskrobust.training.run_folder import FORMAT
from taskrobust.vision.data import Cifar10, ImageFolders
from taskrobust.vision.modalities import Depth, Rgb, SemSeg
from taskrobust.vision.transforms.crops import CenterCrop

OUTCOMES = ("read", "refused", "unnamed", "traceback")


class Reader(NamedTuple):
    """A valid file and what reads it."""

    file: Path
    read: Callable[[], Any]


def readers(folder: Path) -> dict[str, Reader]:
    """All readers, with their files in a folder."""
    return {
        **_run_folder(folder / "run"),
        **_text(folder / "text"),
        **_corpus(folder / "c"),
        **_images(folder / "images"),
    }


def _run_folder(run: Path) -> dict[str, Reader]:
    run.mkdir(parents=True)
    tasks = ("noun", "verb")
    train = {"split": "train", "samples": 8, "loss": 1.0, "samples_per_second": 100.0, "effective_tasks": 2.0}
    lines = [
        {**train, "step": step, "risks": dict.fromkeys(tasks, 2.0 / step), "weights": dict.fromkeys(tasks, 0.5)}
        for step in (1, 2)
    ]
    scores = {f"within/{task}": 1.0 for task in tasks} | {f"pieces/{task}": 10.0 for task in tasks}
    held_out = {"step": 2, "split": "held_out", "risks": dict.fromkeys(tasks, 1.5), "mean": 1.5, "worst": 1.5}
    lines.append({**held_out, "worst_task": "noun", "best": True, "scores": scores})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.yaml").write_text(
        yaml.safe_dump({"weighting": {"class_path": "Uniform"}, "loop": {"seed": 0, "steps": 2}})
    )
    about = {"format": FORMAT, "id": "a", "command": "pretrain-bert", "version": "0", "may_change": ["output"]}
    (run / "run.json").write_text(json.dumps(about))
    tuned = run.parent / "tuned"
    tuned.mkdir()
    row = {"task": "sst2", "title": "SST-2", "place": 1, "counted": True, "metric": "accuracy", "value": 0.5}
    row |= {
        "metrics": {"accuracy": 0.5},
        "split": "dev",
        "model": "last",
        "step": 3,
        "data": "GLUE",
        "pretrained": "r",
        "seed": 0,
    }
    write_results(tuned, [Result(**row)])

    def compared(place: Path) -> Callable[[], Any]:
        return lambda: make_report(find_sources([f"a={place}"])[0], "a", "mean")

    return {
        **{name: Reader(run / name, compared(run)) for name in ("metrics.jsonl", "config.yaml", "run.json")},
        "results.json": Reader(tuned / "results.json", compared(tuned)),
    }


def _text(folder: Path) -> dict[str, Reader]:
    folder.mkdir()
    (folder / "a.txt").write_text("One sentence. Another one.\n\nA second document.\n")
    (folder / "a.jsonl").write_text('{"text": "One sentence."}\n{"text": "Another one."}\n')
    pq.write_table(pa.table({"text": ["One sentence.", "Another one.", None]}), folder / "a.parquet")
    glue = folder / "glue"
    task = next(task for task in GLUE.values() if task.name == "sst2") if isinstance(GLUE, dict) else GLUE[0]
    place = glue / task.folder
    place.mkdir(parents=True)
    (place / "train.tsv").write_text("sentence\tlabel\ngood film\t1\nbad film\t0\n")
    found = {
        suffix: Reader(folder / f"a{suffix}", lambda suffix=suffix: list(read_documents(str(folder / f"a{suffix}"))))
        for suffix in (".txt", ".jsonl", ".parquet")
    }
    return found | {"GLUE .tsv": Reader(place / "train.tsv", lambda: read_split(str(glue), task, "train"))}


def _corpus(folder: Path) -> dict[str, Reader]:
    sources = {"train_source": "grammar", "held_out_source": "grammar", "vocab_size": 300, "sequence_length": 32}
    prepare(CorpusConfig(train=folder / "t", held_out=folder / "h", documents=40, held_out_documents=20, **sources))

    def read() -> Any:
        corpus = Corpus(folder / "t")
        return corpus.__getitems__([(0, 0)]), corpus.counts, corpus.tokenizer

    files = (
        "corpus.json",
        "shard-00000.arrow",
        "counts.npy",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    )
    return {f"corpus {Path(name).name}": Reader(folder / "t" / name, read) for name in files}


def _images(folder: Path) -> dict[str, Reader]:
    draw = np.random.default_rng(0)
    maps = {
        "rgb": draw.integers(0, 256, (24, 32, 3), dtype=np.uint8),
        "depth": draw.integers(300, 9000, (24, 32), dtype=np.uint16),
        "semseg": draw.integers(0, 5, (24, 32), dtype=np.uint8),
    }
    found = {}
    modalities = {"rgb": Rgb(), "depth": Depth(), "semseg": SemSeg(num_classes=5)}
    for suffix in (".png", ".jpg"):
        root = folder / suffix[1:]
        paths = {}
        for name, values in maps.items():
            ending = suffix if name == "rgb" else ".png"
            paths[name] = root / "train" / name / "all" / f"0{ending}"
            paths[name].parent.mkdir(parents=True)
            Image.fromarray(values).save(paths[name])
        images = ImageFolders(modalities, CenterCrop(16), root=root)
        for name, path in paths.items():
            if name == "rgb" or suffix == ".png":
                found[f"{name} {path.suffix}"] = Reader(path, lambda images=images: images.__getitems__([(0, 0)]))
    content = io.BytesIO()
    Image.fromarray(maps["rgb"]).save(content, "PNG")
    cifar = folder / "cifar" / "train.parquet"
    cifar.parent.mkdir()
    pq.write_table(pa.table({"img": [{"bytes": content.getvalue()}] * 2, "label": [0, 9]}), cifar)

    def read() -> Any:
        return Cifar10({"rgb": Rgb()}, CenterCrop(16), root=cifar.parent, split="train").__getitems__([(0, 0)])

    return found | {"CIFAR-10 .parquet": Reader(cifar, read)}


def damaged(file: Path, content: bytes, draw: random.Random) -> bytes:
    """Other content: a changed tree half of the time for JSON and YAML, else changed bytes."""
    if draw.random() < 0.5 and file.suffix in (".json", ".jsonl", ".yaml"):
        text = content.decode()
        lines = text.splitlines() if file.suffix == ".jsonl" else [text]
        place = draw.randrange(len(lines))
        tree = copy.deepcopy(yaml.safe_load(lines[place]) if file.suffix == ".yaml" else json.loads(lines[place]))
        if draw.random() < 0.1:
            tree = draw.choice(NONSENSE)
        else:
            change_value(tree, draw)
        dump = yaml.safe_dump if file.suffix == ".yaml" else json.dumps
        lines[place] = dump(tree)
        return "\n".join([*lines, ""]).encode()
    try:
        content.decode()
    except UnicodeDecodeError:
        place = draw.randrange(len(content))
        flipped = bytes([content[place] ^ 1 << draw.randrange(8)])
        return draw.choice([content[:place], content[:place] + flipped + content[place + 1 :], content[place:], b""])
    return change_bytes(content, draw)


def outcome_of(reader: Reader) -> tuple[str, str]:
    """What came of reading, and the message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read()
    except ValueError as error:
        named = any(str(place) in str(error) for place in (reader.file, reader.file.parent, reader.file.parent.parent))
        return ("refused" if named else "unnamed"), f"{type(error).__name__}: {error}"
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    return "read", ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=3, help="failures to print of each reader and outcome")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    counts: dict[str, Counter[str]] = {}
    shown: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        every = readers(Path(folder))
        for name, reader in every.items():
            outcome, message = outcome_of(reader)
            assert outcome == "read", f"{name}: {message}"
        for number in range(arguments.tries):
            name = list(every)[number % len(every)]
            reader = every[name]
            content = reader.file.read_bytes()
            reader.file.write_bytes(damaged(reader.file, content, draw))
            outcome, message = outcome_of(reader)
            reader.file.write_bytes(content)
            counts.setdefault(name, Counter())[outcome] += 1
            if outcome in OUTCOMES[2:] and shown[name, outcome] < arguments.show:
                shown[name, outcome] += 1
                print(f"{outcome}, {name}: {message}", file=sys.stderr)
    rows = [
        [name, str(sum(of_reader.values())), *(str(of_reader[outcome]) for outcome in OUTCOMES)]
        for name, of_reader in counts.items()
    ]
    print(markdown_table(["file", "tries", *OUTCOMES], rows))
    sys.exit(any(of_reader[outcome] for of_reader in counts.values() for outcome in OUTCOMES[2:]))


if __name__ == "__main__":
    main()
