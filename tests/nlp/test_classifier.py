import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from taskrobust.nlp.classifier import SentenceClassifier, find_pretrained, load_network, load_tokenizer

SIZES = {
    "vocab_size": 50,
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.3,
}


def network(labels: int, **more: Any) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=labels, **more)).eval()


def batch(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    lengths = torch.tensor([[8], [3], [5]])
    mask = (torch.arange(8) < lengths).long()
    ids = torch.randint(1, 50, (3, 8), generator=torch.Generator().manual_seed(1)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (torch.arange(8) > 2) * mask, "labels": labels}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_is_the_sum_of_transformers_losses(attention: str) -> None:
    peer = network(3, attn_implementation=attention)
    given = batch(torch.tensor([2, 0, 1]))
    model = SentenceClassifier(peer)
    outputs = model(**given)
    expected = peer(**given)
    assert torch.allclose(outputs.losses.sums, 3 * expected.loss[None])
    assert outputs.losses.counts.tolist() == [3]
    assert outputs.predictions.tolist() == expected.logits.argmax(1).tolist()


def test_loss_of_one_output_is_the_sum_of_squares() -> None:
    model = SentenceClassifier(network(1))
    given = batch(torch.tensor([0.5, 5.0, 2.2]))
    outputs = model(**given)
    assert torch.allclose(outputs.losses.sums, F.mse_loss(outputs.predictions, given["labels"], reduction="sum")[None])


def test_sums_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses = SentenceClassifier(network(2))(**batch(torch.tensor([1, 0, 1]))).losses
    assert losses.sums.dtype == losses.counts.dtype == torch.float32


def test_padding_does_not_count() -> None:
    model = SentenceClassifier(network(3))
    given = batch(torch.tensor([2, 0, 1]))
    whole = model(**given).losses.sums
    longer = {name: F.pad(value, (0, 8)) if value.dim() == 2 else value for name, value in given.items()}
    assert torch.allclose(model(**longer).losses.sums, whole)


def test_models_without_segments_are_fine_tuned_too() -> None:
    torch.manual_seed(0)
    roberta = RobertaForSequenceClassification(RobertaConfig(**SIZES, num_labels=2)).eval()
    given = batch(torch.tensor([1, 0, 1]))
    del given["token_type_ids"]
    assert torch.allclose(SentenceClassifier(roberta)(**given).losses.sums, 3 * roberta(**given).loss[None])


def test_sliding_windows_are_kept() -> None:
    torch.manual_seed(0)
    config = ModernBertConfig(
        **SIZES, num_labels=2, local_attention=4, pad_token_id=0, attn_implementation="sdpa", reference_compile=False
    )
    peer = ModernBertForSequenceClassification(config).eval()
    given = batch(torch.tensor([1, 0, 1]))
    del given["token_type_ids"]
    assert torch.allclose(SentenceClassifier(peer)(**given).losses.sums, 3 * peer(**given).loss[None])


def test_mask_types_and_labels_can_be_left_out() -> None:
    model = SentenceClassifier(network(3))
    given = batch(torch.tensor([2, 0, 1]))
    whole = {"attention_mask": torch.ones(3, 8).long(), "token_type_ids": torch.zeros(3, 8).long()}
    expected = model(**given | whole)
    outputs = model(given["input_ids"], given["labels"])
    assert torch.allclose(outputs.losses.sums, expected.losses.sums)
    unlabeled = model(given["input_ids"])
    assert torch.equal(unlabeled.predictions, expected.predictions)
    assert (unlabeled.losses.sums.tolist(), unlabeled.losses.counts.tolist()) == ([0], [0])


def test_new_head_comes_from_the_seed(tmp_path: Path) -> None:
    network(2).save_pretrained(tmp_path)
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(load_network(str(tmp_path), ("a", "b", "c")).classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (3, 16)


@pytest.mark.parametrize(("setting", "name"), [("intermediate_size", "intermediate"), ("vocab_size", "embeddings")])
def test_trunk_of_another_shape_is_refused(tmp_path: Path, setting: str, name: str) -> None:
    network(2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {setting: 2 * config[setting]}))
    message = (
        rf"Expected the parameters of a BertModel in .*, got bert\..*{name}.* of shape \[\d+.*\] where its config.json "
        r"expects \[\d+.*\]."
    )
    with pytest.raises(ValueError, match=message):
        load_network(str(tmp_path), ("a", "b", "c"))


def test_run_folder_gives_its_last_model(tmp_path: Path) -> None:
    network(2).save_pretrained(tmp_path / "run/model")
    assert find_pretrained(str(tmp_path / "run")) == str(tmp_path / "run/model")
    assert find_pretrained(str(tmp_path / "run/model")) == str(tmp_path / "run/model")
    assert find_pretrained("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"


def test_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    network(2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Expected the files of a tokenizer next to the model in .*, got none"):
        load_tokenizer(str(tmp_path))
