import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
)

from taskrobust import GradNorm, MultiTaskLoss, TaskLosses, pool_batches
from taskrobust.nlp.attention import UNPADDED
from taskrobust.nlp.model import TASKS, PosBertForPreTraining
from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE
from taskrobust.ranks import Ranks
from taskrobust.weighting._gramian import GramianEstimator

Batch = dict[str, Tensor]
VOCABULARY = 97
LENGTHS = torch.tensor([16, 9, 12, 5])
SEQUENCES, LENGTH = len(LENGTHS), 16
PADDING_ROWS = 3


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def config(**changes: float) -> BertConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    # Weights of this size make attention uneven and sequences differ, so that nothing agrees by chance.
    scale = {"initializer_range": 0.2}
    return BertConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **{**sizes, **no_dropout, **scale, **changes})


@pytest.fixture
def model() -> PosBertForPreTraining:
    return PosBertForPreTraining(config())


@pytest.fixture
def batch() -> Batch:
    """A padded batch of 20 masked words of every class but interjection, and three padding rows."""
    real = torch.arange(LENGTH) < LENGTHS[:, None]
    positions = real.flatten().nonzero().flatten()
    masked = positions[torch.randperm(len(positions))[:20]]
    return {
        "input_ids": torch.randint(5, VOCABULARY, (SEQUENCES, LENGTH)) * real,
        "token_type_ids": (torch.arange(LENGTH) >= LENGTHS[:, None] // 2).long() * real,
        "attention_mask": real.long(),
        "masked_positions": torch.cat([masked, masked.new_zeros(PADDING_ROWS)]),
        "labels": torch.randint(5, VOCABULARY, (20 + PADDING_ROWS,)),
        "classes": torch.cat([torch.arange(20) % (len(CLASSES) - 1), torch.full((PADDING_ROWS,), OUTSIDE)]),
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
    }


def without_padding(batch: Batch) -> Batch:
    real = batch["attention_mask"].flatten().bool()
    return {
        "input_ids": batch["input_ids"].flatten()[real][None],
        "token_type_ids": batch["token_type_ids"].flatten()[real][None],
        "position_ids": torch.cat([torch.arange(n) for n in LENGTHS.tolist()])[None],
        "cu_seqlens": F.pad(LENGTHS.cumsum(0), (1, 0)).int(),
        "masked_positions": (real.cumsum(0) - 1)[batch["masked_positions"]],
        **{key: batch[key] for key in ("labels", "classes", "next_sentence_label")},
    }


def without_words(batch: Batch) -> Batch:
    return {**batch, **{key: batch[key][:0] for key in ("masked_positions", "labels", "classes")}}


def peer_of(model: PosBertForPreTraining) -> BertForPreTraining:
    peer = BertForPreTraining(model.config)
    peer.load_state_dict(model.state_dict())
    return peer


def peer_inputs(batch: Batch) -> Batch:
    return {key: batch[key] for key in ("input_ids", "token_type_ids", "attention_mask")}


def peer_loss(peer: BertForPreTraining, batch: Batch) -> Tensor:
    """The loss of BertForPreTraining for the same masks: the mean over masked words plus the mean over pairs."""
    words = batch["classes"] != OUTSIDE
    labels = torch.full((SEQUENCES * LENGTH,), -100)
    labels[batch["masked_positions"][words]] = batch["labels"][words]
    labels = labels.view(SEQUENCES, LENGTH)
    return peer(**peer_inputs(batch), labels=labels, next_sentence_label=batch["next_sentence_label"]).loss


def mean_over_words_plus_mean_over_pairs(losses: TaskLosses) -> Tensor:
    sums, counts = losses.sums, losses.counts
    return sums[:-1].sum() / counts[:-1].sum() + sums[-1] / counts[-1]


def test_the_tasks_are_the_nine_classes_and_next_sentence_prediction() -> None:
    assert (*CLASSES, "nsp") == TASKS


def test_sums_and_counts_are_those_of_the_logits_of_bert_for_pre_training(
    model: PosBertForPreTraining, batch: Batch
) -> None:
    outputs = peer_of(model)(**peer_inputs(batch))
    words = F.cross_entropy(
        outputs.prediction_logits.view(-1, VOCABULARY)[batch["masked_positions"]], batch["labels"], reduction="none"
    )
    expected = [words[batch["classes"] == index].sum() for index in range(len(CLASSES))]
    expected.append(F.cross_entropy(outputs.seq_relationship_logits, batch["next_sentence_label"], reduction="sum"))

    losses = model(**batch).losses

    torch.testing.assert_close(losses.sums, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert losses.counts.tolist() == [3, 3, 3, 3, 2, 2, 2, 2, 0, 4]


def test_loss_and_gradients_are_those_of_bert_for_pre_training(model: PosBertForPreTraining, batch: Batch) -> None:
    peer = peer_of(model)
    expected = peer_loss(peer, batch)
    expected.backward()

    loss = mean_over_words_plus_mean_over_pairs(model(**batch).losses)
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for (name, parameter), peer_parameter in zip(model.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(
            parameter.grad, peer_parameter.grad, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("change", [lambda batch: batch, without_padding])
def test_segments_and_next_sentence_prediction_can_be_left_out(
    model: PosBertForPreTraining, batch: Batch, change: Callable[[Batch], Batch]
) -> None:
    if change is without_padding:
        model.set_attn_implementation(UNPADDED)
    one_segment = change(batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])})
    optional = ("token_type_ids", "next_sentence_label")

    expected = model(**one_segment).losses
    losses = model(**{name: value for name, value in one_segment.items() if name not in optional}).losses

    torch.testing.assert_close(losses.sums[:-1], expected.sums[:-1])
    assert losses.counts[:-1].tolist() == expected.counts[:-1].tolist()
    assert (losses.sums[-1], losses.counts[-1]) == (0, 0)


def test_unmasked_batch_needs_no_attention_mask(model: PosBertForPreTraining, batch: Batch) -> None:
    whole = batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}
    expected = model(**whole).losses.sums
    del whole["attention_mask"]
    torch.testing.assert_close(model(**whole).losses.sums, expected)


def test_padding_rows_count_nowhere(model: PosBertForPreTraining, batch: Batch) -> None:
    unpadded_rows = {
        k: v[:-PADDING_ROWS] if k in ("masked_positions", "labels", "classes") else v for k, v in batch.items()
    }

    losses = model(**batch).losses
    expected = model(**unpadded_rows).losses

    torch.testing.assert_close(losses.sums, expected.sums)
    assert losses.counts.tolist() == expected.counts.tolist()


def test_an_absent_class_has_sum_and_count_zero_and_a_finite_gradient(
    model: PosBertForPreTraining, batch: Batch
) -> None:
    absent = TASKS.index("interjection")
    losses = model(**batch).losses
    losses.sums[absent].backward()

    assert losses.sums[absent] == 0
    assert losses.counts[absent] == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_a_batch_without_masked_words_still_reaches_every_parameter(model: PosBertForPreTraining, batch: Batch) -> None:
    losses = model(**without_words(batch)).losses
    losses.sums.sum().backward()

    assert losses.sums[:-1].tolist() == [0] * len(CLASSES)
    assert losses.counts.tolist() == [0] * len(CLASSES) + [SEQUENCES]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_nine_masked_copies_in_one_batch_are_nine_batches(model: PosBertForPreTraining, batch: Batch) -> None:
    """Grouping "copies": the batch once per class, with only the words of that class masked."""
    copies = [{**batch, "classes": batch["classes"].where(batch["classes"] == c, OUTSIDE)} for c in range(len(CLASSES))]
    stacked = {key: torch.cat([copy_[key] for copy_ in copies]) for key in batch}
    stacked["masked_positions"] = torch.cat(
        [batch["masked_positions"] + c * SEQUENCES * LENGTH for c in range(len(CLASSES))]
    )

    expected = pool_batches(model(**copy_) for copy_ in copies)
    losses = model(**stacked).losses

    torch.testing.assert_close(losses.sums, expected.sums, rtol=1e-5, atol=1e-5)
    assert torch.equal(losses.counts, expected.counts)


@pytest.mark.parametrize("change", [lambda batch: batch, without_padding, without_words])
def test_task_counts_are_the_counts_of_the_forward_pass(model: PosBertForPreTraining, batch: Batch, change) -> None:
    if change is without_padding:
        model.set_attn_implementation(UNPADDED)
    batch = change(batch)
    torch.testing.assert_close(model.task_counts(batch), model(**batch).losses.counts, rtol=0, atol=0)


def test_losses_are_float32_under_bfloat16_autocast(model: PosBertForPreTraining, batch: Batch) -> None:
    expected = model(**batch).losses
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(**batch).losses

    assert losses.sums.dtype == losses.counts.dtype == torch.float32
    torch.testing.assert_close(losses.sums, expected.sums, rtol=2e-2, atol=2e-2)


def test_cross_entropy_under_autocast_rounds_the_scores_and_nothing_else(
    model: PosBertForPreTraining, batch: Batch
) -> None:
    scores: list[Tensor] = []
    model.cls.predictions.register_forward_hook(lambda module, inputs, output: scores.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(**batch).losses

    assert scores[0].dtype == torch.bfloat16
    words = F.cross_entropy(scores[0].double(), batch["labels"], reduction="none")
    expected = torch.stack([words[batch["classes"] == index].sum() for index in range(len(CLASSES))])
    torch.testing.assert_close(losses.sums[:-1].double(), expected, rtol=1e-6, atol=1e-6)


def test_one_backward_to_the_shared_activation_gives_the_gradient_norm_of_every_task(
    model: PosBertForPreTraining, batch: Batch
) -> None:
    outputs = model(**batch)
    sums, shared = outputs.losses.sums, outputs.shared
    expected = [torch.autograd.grad(task, shared.activation, retain_graph=True)[0].norm() for task in sums]

    estimator = GramianEstimator(len(TASKS), Ranks())
    estimator.add(sums, shared)

    torch.testing.assert_close(estimator.gramian().diag().sqrt(), torch.stack(expected))
    assert shared.activation.shape == (20 + PADDING_ROWS + SEQUENCES, model.config.hidden_size)


def test_gradnorm_over_the_nine_classes_uses_the_shared_activation(model: PosBertForPreTraining, batch: Batch) -> None:
    criterion = MultiTaskLoss(CLASSES, GradNorm(), auxiliary={"nsp": 1.0})
    criterion(model(**batch)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_model_can_be_copied_after_a_forward_pass(model: PosBertForPreTraining, batch: Batch) -> None:
    losses = model(**batch).losses
    torch.testing.assert_close(copy.deepcopy(model)(**batch).losses.sums, losses.sums, rtol=0, atol=0)


def test_a_batch_without_padding_gives_the_losses_and_gradients_of_the_padded_one(
    model: PosBertForPreTraining, batch: Batch
) -> None:
    expected = model(**batch).losses
    expected.sums.sum().backward()
    expected_gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.set_attn_implementation(UNPADDED)

    losses = model(**without_padding(batch)).losses
    losses.sums.sum().backward()

    torch.testing.assert_close(losses.sums, expected.sums, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses.counts, expected.counts)
    torch.testing.assert_close(
        model.bert.embeddings.word_embeddings.weight.grad, expected_gradients[0], rtol=1e-4, atol=1e-5
    )


def test_next_sentence_prediction_without_padding_reads_the_first_token_of_each_sequence(
    model: PosBertForPreTraining, batch: Batch
) -> None:
    scores: list[Tensor] = []
    model.cls.seq_relationship.register_forward_hook(lambda module, inputs, output: scores.append(output))
    model(**batch)
    model.set_attn_implementation(UNPADDED)
    model(**without_padding(batch))

    padded, unpadded = scores
    assert len(padded.unique(dim=0)) == SEQUENCES
    torch.testing.assert_close(unpadded, padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", UNPADDED])
def test_a_padded_batch_gives_the_same_losses_with_every_attention(
    model: PosBertForPreTraining, batch: Batch, attention: str
) -> None:
    expected = model(**batch).losses.sums
    model.set_attn_implementation(attention)
    torch.testing.assert_close(model(**batch).losses.sums, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_without_padding_under_sdpa_is_refused(model: PosBertForPreTraining, batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"got 'sdpa'. Call model.set_attn_implementation\('taskrobust_unpadded'\)"):
        model(**without_padding(batch))


def test_attention_dropout_without_padding_is_refused_in_training_and_idle_in_evaluation(batch: Batch) -> None:
    model = PosBertForPreTraining(config(attention_probs_dropout_prob=0.1))
    model.set_attn_implementation(UNPADDED)
    with pytest.raises(ValueError, match=r"got 0.1. Set attention_probs_dropout_prob=0"):
        model.train()(**without_padding(batch))
    assert model.eval()(**without_padding(batch)).losses.sums.isfinite().all()


def test_parameter_names_are_those_of_bert_for_pre_training(model: PosBertForPreTraining) -> None:
    peer = BertForPreTraining(config())
    assert list(model.state_dict()) == list(peer.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in peer.named_parameters()]
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


@pytest.mark.parametrize("attention", ["sdpa", UNPADDED])
def test_saved_model_loads_as_bert_for_pre_training(
    model: PosBertForPreTraining, batch: Batch, tmp_path: Path, attention: str
) -> None:
    model.set_attn_implementation(attention)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())

    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert saved["architectures"] == ["BertForPreTraining"]
    assert UNPADDED not in json.dumps(saved)
    for loader in (BertForPreTraining, AutoModelForPreTraining):
        peer, report = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert type(peer) is BertForPreTraining
        assert not any(report.values())
        for name, value in model.state_dict().items():
            torch.testing.assert_close(peer.state_dict()[name], value, rtol=0, atol=0)
    again = PosBertForPreTraining.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**batch).losses.sums, model.eval()(**batch).losses.sums, rtol=0, atol=0)


def test_the_saved_trunk_loads_for_fine_tuning_and_misses_no_key(model: PosBertForPreTraining, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    classifier, report = BertForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    trunk, trunk_report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)

    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert not trunk_report["missing_keys"]
    for name, value in model.bert.state_dict().items():
        torch.testing.assert_close(classifier.bert.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(trunk.state_dict()[name], value, rtol=0, atol=0)


def test_the_trunk_compiles_to_one_graph(model: PosBertForPreTraining, batch: Batch) -> None:
    expected = model(**batch).losses.sums
    model.bert.compile(backend="aot_eager", fullgraph=True)
    sums = model(**batch).losses.sums
    sums.sum().backward()
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-5)
