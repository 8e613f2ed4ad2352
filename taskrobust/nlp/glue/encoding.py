"""Examples as WordPieces: encoded once, padded batch by batch."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from taskrobust._random import random_bits
from taskrobust.nlp.glue.files import Examples, Labels
from taskrobust.training.data import Key

_AT_ONCE: Final = 10_000  # examples that are encoded in one call, which returns Python lists
_MULTIPLE: Final = 8  # batch widths are multiples of this, which suits matrix units


class EncodedExamples(Dataset[dict[str, Any]]):
    """A data set of N encoded examples with P pieces in total.

    Args:
        input_ids: Concatenated pieces of all examples, int32 [P].
        token_type_ids: 0 in the first sentence, 1 in the second, int8 [P]. None for models that do not use them.
        lengths: Number of pieces per example, [N].
        labels: Class numbers or scores, [N]. None for a test split.
        pad_id: Id of the padding piece.
    """

    def __init__(
        self,
        input_ids: NDArray[np.int32],
        token_type_ids: NDArray[np.int8] | None,
        lengths: NDArray[np.int64],
        labels: Labels | None,
        pad_id: int,
    ) -> None:
        self.input_ids = input_ids
        self.token_type_ids = token_type_ids
        self.lengths = lengths
        self.labels = labels
        self.pad_id = pad_id
        self._ends = np.cumsum(lengths)
        self.widths = -(-lengths // _MULTIPLE) * _MULTIPLE
        """Padded lengths, [N], by which batches of similar length are formed. Batches of equal length would save no
        more and train worse, since length often correlates with the label."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"EncodedExamples({len(self)} examples, {len(self.input_ids)} pieces)"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example without padding, as plain lists and numbers.

        Raises:
            IndexError: If the index is not in [0, N).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}, got {index}.")
        pieces = slice(self._ends[index] - self.lengths[index], self._ends[index])
        sample = {"input_ids": self.input_ids[pieces].tolist()}
        if self.token_type_ids is not None:
            sample["token_type_ids"] = self.token_type_ids[pieces].tolist()
        if self.labels is not None:
            sample["labels"] = self.labels[index].item()
        return sample

    def __getitems__(self, keys: list[Key]) -> NDArray[np.int64]:
        """The indices of the examples with the given keys (index, epoch), for :meth:`collate`."""
        return np.array([index for index, _ in keys])

    def collate(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """Make a batch of B examples, padded to S, the length of the longest one rounded up to a multiple of eight.

        Returns:
            input_ids, attention_mask, token_type_ids if the model uses them: int64 [B, S]; labels if there are any:
            int64 or float32 [B].
        """
        lengths = self.lengths[indices]
        width = self.widths[indices].max()
        inside = np.arange(width) < lengths[:, None]
        starts = self._ends[indices] - lengths
        pieces = (starts[:, None] + np.arange(width))[inside]
        batch: dict[str, NDArray[Any]] = {
            "input_ids": np.full(inside.shape, self.pad_id, np.int64),
            "attention_mask": inside.astype(np.int64),
        }
        batch["input_ids"][inside] = self.input_ids[pieces]
        if self.token_type_ids is not None:
            batch["token_type_ids"] = np.zeros(inside.shape, np.int64)
            batch["token_type_ids"][inside] = self.token_type_ids[pieces]
        if self.labels is not None:
            batch["labels"] = self.labels[indices]
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def encode(examples: Examples, tokenizer: Any, max_length: int) -> EncodedExamples:
    """Encode examples. Too long a pair loses pieces at the end of its longer sentence.

    Args:
        examples: The sentences and labels.
        tokenizer: The tokenizer of the model.
        max_length: Maximum number of pieces per example, including special ones.
    """
    max_length = min(max_length, tokenizer.model_max_length)
    has_types = "token_type_ids" in tokenizer.model_input_names
    ids, types, lengths = [], [], []
    for start in range(0, len(examples), _AT_ONCE):
        texts = [column[start : start + _AT_ONCE] for column in examples.texts]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        lengths += [len(pieces) for pieces in encoded["input_ids"]]
        ids.append(_flat(encoded["input_ids"], np.int32))
        if has_types:
            types.append(_flat(encoded["token_type_ids"], np.int8))
    return EncodedExamples(
        np.concatenate(ids),
        np.concatenate(types) if has_types else None,
        np.array(lengths),
        examples.labels,
        tokenizer.pad_token_id,
    )


def _flat(rows: list[list[int]], kind: Any) -> NDArray[Any]:
    return np.fromiter((piece for row in rows for piece in row), kind)


def drawn(examples: Examples, number: int, seed: int = 0) -> Examples:
    """Draw examples at random, without replacement. A smaller draw is contained in a larger one of the same seed.

    Args:
        examples: The examples to draw from.
        number: Number of examples. If there are fewer, all are drawn.
        seed: Seed of the draw.
    """
    order = np.argsort(random_bits(np.array([seed], dtype=np.uint64), np.arange(len(examples))))[:number]
    texts = tuple([column[index] for index in order] for column in examples.texts)
    labels = None if examples.labels is None else examples.labels[order]
    return Examples(texts, labels, [examples.ids[index] for index in order] if examples.ids else [])
