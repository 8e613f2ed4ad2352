"""Predictions on the test sets, as the leaderboard takes them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskrobust.nlp.glue.reading import HIGHEST_SCORE
from taskrobust.nlp.glue.tasks import GlueTask


def write_predictions(path: Path, task: GlueTask, ids: list[str], predictions: NDArray[Any]) -> None:
    """Writes one file of a submission: a header, then index and prediction of each example.

    Args:
        path: The file, of which the leaderboard wants the name that ``task.test`` has.
        task: The task, which names the classes.
        ids: What the examples are called, [N].
        predictions: Class numbers, or scores, which are cut to the range from 0 to 5, [N].
    """
    if task.labels is None:
        texts = [f"{score:.3f}" for score in np.clip(predictions, 0, HIGHEST_SCORE)]
    else:
        texts = [task.labels[int(number)] for number in predictions]
    lines = ["index\tprediction", *(f"{index}\t{text}" for index, text in zip(ids, texts, strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
