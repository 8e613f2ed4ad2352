import json
import math
import re
from pathlib import Path

import pytest
import torch

from taskrobust import Fixed, MultiTaskLoss


def test_weights_are_the_constants() -> None:
    weights = Fixed([0.5, 0, 4]).setup("abc").weights(torch.tensor([5.0, 1.0, 2.0]), torch.ones(3))

    assert weights.tolist() == [0.5, 0, 4]


@pytest.mark.parametrize("values", [[1.0, -0.5], [0.0, 0.0], [1.0, math.nan], [math.inf, 1.0]])
def test_invalid_constants_raise(values: list[float]) -> None:
    message = f"Expected finite weights, none negative and one positive, got {values}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Fixed(values).setup("ab")


def test_constants_by_name_are_put_in_order() -> None:
    weighting = Fixed({"verb": 1.0, "noun": 3.0, "nsp": 9.0}).setup(["noun", "verb"])
    assert weighting.weights(torch.ones(2), torch.ones(2)).tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"^Expected a weight of each task, got none of \['adverb'\] in \{'noun'"):
        Fixed({"noun": 1}).setup(["noun", "adverb"])


def test_weights_of_a_run_are_averaged_over_its_steps(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "split": "train", "weights": {"noun": 0.4, "verb": 0.6}},
        {"step": 10, "split": "held_out"},
        {"step": 15, "split": "train", "weights": {"noun": 0.7, "verb": 0.3}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    weights = Fixed(tmp_path).setup(["verb", "noun"]).weights(torch.ones(2), torch.ones(2))

    assert weights.tolist() == pytest.approx([(10 * 0.6 + 5 * 0.3) / 15, (10 * 0.4 + 5 * 0.7) / 15])


@pytest.mark.parametrize("content", [None, "", "[1]\n", '{"step": 1}\n', "\x00"])
def test_a_folder_without_a_run_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match=f"^Expected the folder of a run .*{re.escape(str(tmp_path))}"):
        Fixed(tmp_path).setup(["noun"])


def test_wrong_number_of_constants_raises_and_names_the_tasks() -> None:
    message = "Expected one value per task of ['rgb', 'depth', 'semseg'] in Fixed(values=...), got [0.5, 0.3]."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MultiTaskLoss(["rgb", "depth", "semseg"], Fixed((0.5, 0.3)))


def test_checkpoint_does_not_overwrite_the_constants() -> None:
    criterion = MultiTaskLoss(["rgb", "depth"], Fixed([1.0, 3.0]))
    criterion.load_state_dict(MultiTaskLoss(["rgb", "depth"], Fixed([1.0, 1.0])).state_dict())

    criterion(torch.tensor([1.0, 1.0]))

    assert criterion.last.weight_vector.tolist() == [0.25, 0.75]
