"""Times the masking of a batch beside transformers' DataCollatorForLanguageModeling.

A table: milliseconds of process time a batch, the minimum and the median over the repetitions, the rows interleaved
in one process. The batch is 256 pairs of segments of the generated corpus, 128 pieces long. Ours starts from the arrays
that the corpus returns, theirs from a list of encodings with the mask of special tokens, each the form that its data
loader hands over. Theirs knows no classes, and its whole words are only ever replaced by the mask token.

Run: ``OMP_NUM_THREADS=1 python benchmarks/masking.py``
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import numpy as np
import torch
from transformers import BertTokenizer, DataCollatorForLanguageModeling

from taskrobust.nlp.corpus.store import PairBatch
from taskrobust.nlp.corpus.wordpiece import train_wordpiece
from taskrobust.nlp.masking import Masking
from taskrobust.nlp.tagging.tagset import OUTSIDE, class_of_tag
from taskrobust.synthetic.text.grammar import detokenize, generate_documents


def generated_pairs(tokenizer: BertTokenizer, sequences: int, length: int) -> PairBatch:
    """Full sequences of two segments, cut from the stream of generated words."""
    pieces = _pieces(tokenizer)
    special = OUTSIDE | 16
    first = length // 2
    rows = []
    for _ in range(sequences):
        a = [next(pieces) for _ in range(first)]
        b = [next(pieces) for _ in range(length - 3 - first)]
        start, separator = (tokenizer.cls_token_id, special), (tokenizer.sep_token_id, special)
        rows.append([start, *a, separator, *b, separator])
    input_ids, flags = np.moveaxis(np.array(rows), 2, 0)
    return PairBatch(
        keys=np.stack([np.arange(sequences), np.zeros(sequences, dtype=np.int64)], axis=1),
        input_ids=np.ascontiguousarray(input_ids),
        flags=flags.astype(np.uint8),
        lengths=np.full(sequences, length),
        first=np.full(sequences, first),
        is_random=np.arange(sequences) % 2 == 1,
    )


def _pieces(tokenizer: BertTokenizer) -> Iterator[tuple[int, int]]:
    """The pieces of the corpus with their flags."""
    for word, tag in chain.from_iterable(chain.from_iterable(generate_documents(10**9, seed=0))):
        for index, piece in enumerate(tokenizer(word, add_special_tokens=False).input_ids):
            yield piece, class_of_tag(tag) | (16 if index == 0 else 0)


def as_encodings(pairs: PairBatch) -> list[dict[str, list[object]]]:
    """What the tokenizer returns for one pair each, with special_tokens_mask and offset_mapping."""
    length = pairs.input_ids.shape[1]
    special = (pairs.flags == (OUTSIDE | 16)) & (pairs.input_ids < 5)
    # A word follows the one before after a gap of one character; every piece counts as one.
    starts = np.arange(length) + np.cumsum(pairs.flags >= 16, axis=1)
    offsets = np.where(special[:, :, None], 0, np.stack([starts, starts + 1], axis=2))
    token_types = (np.arange(length) >= pairs.first[:, None] + 2).astype(np.int64)
    columns = {
        "input_ids": pairs.input_ids.tolist(),
        "token_type_ids": token_types.tolist(),
        "attention_mask": np.ones_like(pairs.input_ids).tolist(),
        "special_tokens_mask": special.astype(np.int64).tolist(),
        "offset_mapping": offsets.tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    tokenizer = train_wordpiece(map(detokenize, generate_documents(2000, seed=0)), vocab_size=1000)
    pairs = generated_pairs(tokenizer, arguments.sequences, arguments.length)
    encodings = as_encodings(pairs)
    without_offsets = [{k: v for k, v in encoding.items() if k != "offset_mapping"} for encoding in encodings]
    ours = {
        "token": Masking(tokenizer),
        "token, fixed size": Masking(tokenizer, fixed_size=True),
        "token, unpadded": Masking(tokenizer, unpadded=True),
        "token, stratified": Masking(tokenizer, stratified=True),
        "sequence": Masking(tokenizer, grouping="sequence"),
        "copies (9 x the sequences)": Masking(tokenizer, grouping="copies"),
    }
    plain = DataCollatorForLanguageModeling(tokenizer)
    whole_words = DataCollatorForLanguageModeling(
        tokenizer, whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0
    )
    collate: dict[str, Callable[[], object]] = {
        **{f"ours, {name}": partial(masking, pairs) for name, masking in ours.items()},
        "transformers": partial(plain, without_offsets),
        "transformers, whole words": partial(whole_words, encodings),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in collate}
    for _ in range(arguments.repeat):
        for name, run in collate.items():
            run()  # untimed: the caches are those of a loader that does nothing else
            start = time.process_time()
            run()
            milliseconds[name].append(1e3 * (time.process_time() - start))

    print(f"\nmasking {arguments.sequences} x {arguments.length}, ms of process time on one thread")
    print("| collator | minimum | median |\n|---|---|---|")
    for name, times in milliseconds.items():
        print(f"| {name} | {min(times):.2f} | {statistics.median(times):.2f} |")


if __name__ == "__main__":
    main()
