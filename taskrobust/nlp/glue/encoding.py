"""The sentences of a GLUE task as the model reads them: encoded once, padded a batch at a time."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskrobust._random import random_bits
from taskrobust.nlp.glue.reading import Examples, Labels
from taskrobust.training.data import Key

_AT_ONCE: Final = 10_000  # examples whose pieces are lists of Python before they go into an array
_MULTIPLE: Final = 8  # lengths of batches, which matrix units like


class EncodedExamples:
    """Examples as pieces, and the batches that are made of them. N examples of P pieces in all.

    Args:
        input_ids: Pieces of all examples, one example after another, int32 [P].
        token_type_ids: 0 in the first sentence, 1 in the second, int8 [P]; None for models without.
        lengths: Pieces of each example, [N].
        labels: Class numbers or scores, [N].
        pad_id: The piece that pads.
    """

    def __init__(
        self,
        input_ids: NDArray[np.int32],
        token_type_ids: NDArray[np.int8] | None,
        lengths: NDArray[np.int64],
        labels: Labels,
        pad_id: int,
    ) -> None:
        self.input_ids = input_ids
        self.token_type_ids = token_type_ids
        self.lengths = lengths
        self.labels = labels
        self.pad_id = pad_id
        self._ends = np.cumsum(lengths)
        self.widths = -(-lengths // _MULTIPLE) * _MULTIPLE
        """Lengths with padding, [N]: what batches of like length are made by. Those of exactly like length would save
        no more and learn less, as length often goes with the label."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, keys: list[Key]) -> NDArray[np.int64]:
        """The indices of the examples with the given keys, for ``collate``."""
        return np.array([index for index, _ in keys])

    def collate(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """A batch of B examples, padded to the longest, and from there to a multiple of eight, S.

        Returns:
            input_ids, attention_mask, token_type_ids if the model has them: int64 [B, S]; labels: int64 or float32 [B].
        """
        lengths = self.lengths[indices]
        width = self.widths[indices].max()
        inside = np.arange(width) < lengths[:, None]
        starts = self._ends[indices] - lengths
        pieces = (starts[:, None] + np.arange(width))[inside]
        batch = {"input_ids": np.full(inside.shape, self.pad_id, np.int64), "attention_mask": inside.astype(np.int64)}
        batch["input_ids"][inside] = self.input_ids[pieces]
        if self.token_type_ids is not None:
            batch["token_type_ids"] = np.zeros(inside.shape, np.int64)
            batch["token_type_ids"][inside] = self.token_type_ids[pieces]
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        return tensors | {"labels": torch.from_numpy(self.labels[indices])}


def encode(examples: Examples, tokenizer: Any, max_length: int) -> EncodedExamples:
    """Encodes examples; of a pair that is too long, the longer sentence loses pieces at its end.

    Args:
        examples: The sentences. Without labels they are given the label 0.
        tokenizer: That of the model.
        max_length: Most pieces of an example, special ones included.
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
    labels = np.zeros(len(examples), np.int64) if examples.labels is None else examples.labels
    return EncodedExamples(
        np.concatenate(ids),
        np.concatenate(types) if has_types else None,
        np.array(lengths),
        labels,
        tokenizer.pad_token_id,
    )


def _flat(rows: list[list[int]], kind: Any) -> NDArray[Any]:
    return np.fromiter((piece for row in rows for piece in row), kind)


def drawn(examples: Examples, number: int, seed: int = 0) -> Examples:
    """As many examples, drawn without order; fewer of them are among more of them.

    Args:
        examples: What to draw from.
        number: How many; all, if there are not more.
        seed: Names the draw.
    """
    order = np.argsort(random_bits(np.array([seed], dtype=np.uint64), np.arange(len(examples))))[:number]
    texts = tuple([column[index] for index in order] for column in examples.texts)
    labels = None if examples.labels is None else examples.labels[order]
    return Examples(texts, labels, [examples.ids[index] for index in order] if examples.ids else [])
