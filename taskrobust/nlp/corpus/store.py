"""The annotated corpus on disk: pairs of segments as Arrow files, with three bytes per piece."""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch.utils.data import Dataset

from taskrobust._io.atomic import checksum, replacing
from taskrobust._io.damage import damage_named
from taskrobust._io.manifest import Manifest
from taskrobust.nlp.corpus.pairs import Pair
from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE

WORD_START: Final = 16
"""The flag of a piece that starts a word."""

CLASS_BITS: Final = 15
"""The bits of the flags that hold the class of a piece."""

MANIFEST: Final = Manifest(
    file="corpus.json", kind="an annotated corpus", format=3, command="annotate --source SOURCE --output"
)
TOKENIZER: Final = "tokenizer"
COUNTS: Final = "counts.npy"
"""Number of pieces by id and class, [V, 10]."""

_PIECES_BY_CLASS: Final = b"pieces_by_class"
_SCHEMA: Final = pa.schema(
    {
        "ids": pa.list_(pa.uint16()),
        "flags": pa.list_(pa.uint8()),
        "first": pa.uint16(),
        "is_random": pa.bool_(),
    }
)


class PairBatch(NamedTuple):
    """B pairs of segments as rows ``[CLS] A [SEP] B [SEP]`` with padding.

    Attributes:
        keys: Index of the pair in the corpus, and epoch, [B, 2].
        input_ids: WordPiece ids, [B, S].
        flags: Class of each piece's word, plus ``WORD_START`` on the first piece of a word, [B, S]. Special tokens and
            padding are words of class ``OUTSIDE``.
        lengths: Number of tokens without padding, including three special ones, [B].
        first: Number of pieces of segment A, [B]. Segment B starts at position ``first + 2``.
        is_random: Whether B is from another document than A, [B].
    """

    keys: NDArray[np.int64]
    input_ids: NDArray[np.int64]
    flags: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    first: NDArray[np.int64]
    is_random: NDArray[np.bool_]


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{number:05d}.arrow"


def write_shard(path: Path, ids: NDArray[np.uint16], flags: NDArray[np.uint8], pairs: Iterable[Pair]) -> None:
    """Write pairs of segments to a file.

    Args:
        path: The file.
        ids: Concatenated WordPiece ids of the documents, [P].
        flags: Class of each piece's word, plus ``WORD_START`` on the first piece of a word, [P].
        pairs: The pairs, as ranges of the pieces.
    """
    pairs = list(pairs)
    segments = [slice(*segment) for pair in pairs for segment in (pair.first, pair.second)]
    ids = np.concatenate([ids[segment] for segment in segments])
    flags = np.concatenate([flags[segment] for segment in segments])
    lengths = np.array([segment.stop - segment.start for segment in segments], np.int32).reshape(-1, 2)
    offsets = pa.array(np.concatenate([[0], lengths.sum(1).cumsum()]), pa.int32())
    counts = np.bincount(flags & CLASS_BITS, minlength=OUTSIDE + 1).tolist()
    batch = pa.record_batch(
        [
            pa.ListArray.from_arrays(offsets, pa.array(ids)),
            pa.ListArray.from_arrays(offsets, pa.array(flags)),
            pa.array(lengths[:, 0].astype(np.uint16)),
            pa.array([pair.is_random for pair in pairs]),
        ],
        schema=_SCHEMA.with_metadata({_PIECES_BY_CLASS: json.dumps(counts)}),
    )
    # One batch per shard, so that each column is contiguous and can be mapped into memory as one array.
    with replacing(path) as temporary, pa.ipc.new_stream(str(temporary), batch.schema) as stream:
        stream.write_batch(batch)


def summarize_shard(path: Path) -> tuple[dict[str, Any], list[int]]:
    """The entry of a shard in the manifest, and its number of pieces per class."""
    batch = _open_shard(path)
    counts = json.loads(batch.schema.metadata[_PIECES_BY_CLASS])
    entry = {"file": path.name, "sequences": batch.num_rows, "pieces": sum(counts), "crc32": checksum(path)}
    return entry, counts


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a complete corpus."""
    return MANIFEST.is_complete(folder) and (folder / COUNTS).exists()


def count_pieces(paths: Iterable[Path], vocab_size: int) -> NDArray[np.int64]:
    """The number of pieces in shards by id and class, [V, 10]."""
    classes = OUTSIDE + 1
    total = np.zeros(vocab_size * classes, np.int64)
    for path in paths:
        ids, flags, *_ = _open_shard(path).columns
        cells = ids.values.to_numpy().astype(np.int64) * classes + (flags.values.to_numpy() & CLASS_BITS)
        total += np.bincount(cells, minlength=len(total))
    return total.reshape(vocab_size, classes)


def _open_shard(path: Path) -> pa.RecordBatch:
    try:
        batch = pa.ipc.open_stream(pa.memory_map(str(path))).read_next_batch()
    except (OSError, pa.ArrowInvalid, StopIteration) as error:
        raise ValueError(
            f"Expected a shard, {path} is missing or truncated: {error}. Delete the file and run the same `taskrobust "
            "annotate` command again. The other shards are kept."
        ) from error
    return batch


class _Shard:
    """The columns of a shard, as views of the mapped file."""

    def __init__(self, path: Path, sequences: int):
        batch = _open_shard(path)
        assert batch.num_rows == sequences, (
            f"{path} has {batch.num_rows} sequences, not {sequences} as in {MANIFEST.file}"
        )
        ids, flags, first, is_random = batch.columns
        self.ids = ids.values.to_numpy()
        self.flags = flags.values.to_numpy()
        # Reading single elements of a memoryview is twice as fast as of an array.
        self.offsets = memoryview(ids.offsets.to_numpy())
        self.first = memoryview(first.to_numpy())
        self.is_random = memoryview(is_random.to_numpy(zero_copy_only=False))


class Corpus(Dataset[dict[str, Any]]):
    """An annotated corpus, mapped into memory.

    Args:
        folder: A folder that ``taskrobust annotate`` wrote.
        verify: Whether to compare the contents of the shards with their checksums, which reads all files once.

    Attributes:
        sequence_length: Length S of the rows, including three special tokens and padding.
        vocab_size: Number of WordPieces.
        pieces_by_class: Number of pieces of each of the nine classes, and of class ``OUTSIDE``, [10].
        pad_token_id: Id of ``[PAD]``, likewise ``cls_token_id``, ``sep_token_id`` and ``mask_token_id``.

    Raises:
        ValueError: If the folder holds no complete corpus, or a shard is damaged.
    """

    def __init__(self, folder: str | Path, verify: bool = True):
        self.folder = Path(folder)
        manifest = MANIFEST.read_complete(self.folder)
        with damage_named(self.folder / MANIFEST.file, "the manifest of a corpus"):
            self._open(manifest, verify)

    def _open(self, manifest: dict[str, Any], verify: bool) -> None:
        sizes = [manifest["sequence_length"], manifest["vocab_size"], *manifest["special_tokens"].values()]
        if not all(type(size) is int and 0 <= size < 2**31 for size in sizes):
            raise ValueError(f"sizes and special tokens are {sizes}")
        if not manifest["shards"]:
            raise ValueError("there are no shards")
        self.sequence_length: int = manifest["sequence_length"]
        self.vocab_size: int = manifest["vocab_size"]
        self.pieces_by_class = np.array(manifest["pieces_by_class"])
        self.pad_token_id: int = manifest["special_tokens"]["pad"]
        self.cls_token_id: int = manifest["special_tokens"]["cls"]
        self.sep_token_id: int = manifest["special_tokens"]["sep"]
        self.mask_token_id: int = manifest["special_tokens"]["mask"]
        self._shards = [_Shard(self.folder / shard["file"], shard["sequences"]) for shard in manifest["shards"]]
        counts = {"file": COUNTS, "crc32": manifest["counts_crc32"]}
        for file in (*manifest["shards"], counts) if verify else ():
            path = self.folder / file["file"]
            if not path.exists() or checksum(path) != file["crc32"]:
                raise ValueError(
                    f"The file {path} is missing or damaged: it has other content than was written. Delete it and run "
                    "the same `taskrobust annotate` command again. The other files are kept."
                )
        self._ends = np.cumsum([shard["sequences"] for shard in manifest["shards"]])

    def __reduce__(self) -> tuple[type["Corpus"], tuple[Path, bool]]:
        return Corpus, (self.folder, False)  # worker processes map the files themselves

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"Corpus({str(self.folder)!r}, {len(self)} pairs of up to {self.sequence_length} tokens)"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One pair of segments in readable form, without padding.

        Returns:
            tokens: the WordPieces with special tokens; classes: the name of the class of each token, or None;
            is_random: whether the second segment is from another document.

        Raises:
            IndexError: If the index is not in [0, N), for N pairs.
        """
        pair = self.__getitems__([(index, 0)])
        (length,) = pair.lengths
        names = (*CLASSES, None)
        return {
            "tokens": self.tokenizer.convert_ids_to_tokens(pair.input_ids[0, :length].tolist()),
            "classes": [names[flag & CLASS_BITS] for flag in pair.flags[0, :length].tolist()],
            "is_random": bool(pair.is_random[0]),
        }

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of pieces by id and class, the last one ``OUTSIDE``, [V, 10]."""
        counts: NDArray[np.int64] = np.load(self.folder / COUNTS)
        return counts

    @cached_property
    def tokenizer(self) -> Any:
        """The ``transformers.BertTokenizer`` of the corpus."""
        from taskrobust.nlp.corpus.wordpiece import load_wordpiece  # transformers takes a second to import

        return load_wordpiece(self.folder / TOKENIZER)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> PairBatch:
        """The pairs with the given keys (index, epoch), as one batch.

        Raises:
            IndexError: If an index is not in [0, N), for N pairs.
        """
        batch_keys = np.array(keys, np.int64).reshape(-1, 2)
        indices = batch_keys[:, 0]
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"Expected indices from 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}.")
        numbers = np.searchsorted(self._ends, indices, side="right")
        begins = np.concatenate([[0], self._ends])[numbers]
        rows = [(self._shards[number], row) for number, row in zip(numbers, (indices - begins).tolist(), strict=True)]
        stretches = [(shard, slice(shard.offsets[row], shard.offsets[row + 1])) for shard, row in rows]
        first = np.array([shard.first[row] for shard, row in rows], np.int64)
        lengths = np.array([stretch.stop - stretch.start for _, stretch in stretches], np.int64) + 3

        column = np.arange(self.sequence_length)
        middle, end = (first + 1)[:, None], (lengths - 1)[:, None]  # the two separators
        is_piece = (column > 0) & (column < end) & (column != middle)
        input_ids = np.full(is_piece.shape, self.pad_token_id, np.int64)
        input_ids[is_piece] = np.concatenate([shard.ids[stretch] for shard, stretch in stretches])
        input_ids[:, 0] = self.cls_token_id
        np.put_along_axis(input_ids, np.hstack([middle, end]), self.sep_token_id, axis=1)
        flags = np.full(is_piece.shape, OUTSIDE | WORD_START, np.uint8)
        flags[is_piece] = np.concatenate([shard.flags[stretch] for shard, stretch in stretches])
        is_random = np.array([shard.is_random[row] for shard, row in rows], np.bool_)
        return PairBatch(batch_keys, input_ids, flags, lengths, first, is_random)
