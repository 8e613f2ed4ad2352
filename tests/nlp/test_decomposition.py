import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from taskrobust.nlp.decomposition import DecompositionScores, class_distribution, decompose
from taskrobust.nlp.model import TASKS, WITHIN_CLASS_TASKS, PosBertForPreTraining
from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE
from tests.nlp.test_model import VOCABULARY, Batch, batch, config, without_words

__all__ = ["batch"]  # a fixture

ROWS, VOCAB = 40, 25


@pytest.fixture
def distribution() -> Tensor:
    generator = np.random.default_rng(0)
    return class_distribution(generator.poisson(2.0, (VOCAB, OUTSIDE + 1)))


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and classes."""
    generator = torch.Generator().manual_seed(1)
    scores = 3 * torch.randn(ROWS, VOCAB, generator=generator)
    labels = torch.randint(VOCAB, (ROWS,), generator=generator)
    return scores, labels, torch.randint(OUTSIDE + 1, (ROWS,), generator=generator)


def by_two_softmaxes(scores: Tensor, labels: Tensor, classes: Tensor, distribution: Tensor) -> tuple[Tensor, Tensor]:
    """The parts in double precision from logits, as in the specification of the decomposition."""
    given = scores + distribution.double().log().T[classes]
    within = given.logsumexp(1) - given.gather(1, labels[:, None])[:, 0]
    return within, scores.logsumexp(1) - given.logsumexp(1)


def test_the_distribution_is_that_of_the_counts_with_one_more_count_spread_over_the_classes() -> None:
    counts = np.zeros((3, OUTSIDE + 1), np.int64)
    counts[0, 1], counts[1, 1], counts[1, 4] = 8, 3, 9

    found = class_distribution(counts)

    share = (counts.sum(0) + 1) / 30
    assert found[1, 4].item() == pytest.approx((9 + share[4]) / 13)
    assert found[2].tolist() == pytest.approx(share.tolist())
    torch.testing.assert_close(found.sum(1), torch.ones(3))


def test_parts_and_gradients_are_those_of_two_softmaxes(
    rows: tuple[Tensor, Tensor, Tensor], distribution: Tensor
) -> None:
    scores, labels, classes = rows
    exact = scores.double().requires_grad_()
    scores.requires_grad_()
    factors = torch.randn(2, ROWS, generator=torch.Generator().manual_seed(2))

    parts, expected = decompose(*rows, distribution), by_two_softmaxes(exact, labels, classes, distribution)

    for own, other, factor in zip(parts, expected, factors, strict=True):
        torch.testing.assert_close(own.double(), other, rtol=1e-5, atol=1e-5)
        (factor * own).sum().backward(retain_graph=True)
        (factor * other).sum().backward(retain_graph=True)
    assert scores.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(scores.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


def test_parts_are_computed_in_float32_under_autocast(
    rows: tuple[Tensor, Tensor, Tensor], distribution: Tensor
) -> None:
    scores, labels, classes = rows
    scores = scores.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        parts = decompose(scores, labels, classes, distribution)
    for part, expected in zip(parts, decompose(scores.float(), labels, classes, distribution), strict=True):
        assert torch.equal(part, expected)
    (gradient,) = torch.autograd.grad(sum(part.sum() for part in parts), scores)
    assert gradient.dtype == torch.bfloat16


def test_the_parts_add_up_to_the_raw_loss(rows: tuple[Tensor, Tensor, Tensor], distribution: Tensor) -> None:
    within, of_class = decompose(*rows, distribution)
    scores, labels, classes = rows

    raw = F.cross_entropy(scores, labels, reduction="none")
    torch.testing.assert_close(within + of_class + distribution[labels, classes].log(), raw, rtol=1e-5, atol=1e-5)


def test_a_class_prior_moves_the_class_and_leaves_what_is_within(
    rows: tuple[Tensor, Tensor, Tensor], distribution: Tensor
) -> None:
    """Reweighting classes multiplies the probability of each pair of piece and class by a factor of the class."""
    scores, labels, classes = rows
    factor = torch.tensor([1.0, 2, 4, 8, 1, 1, 3, 0.1, 30, 1])
    joint = scores.softmax(1)[:, :, None] * distribution * factor
    moved = (joint / joint.sum((1, 2), keepdim=True)).sum(2)
    of_moved = joint / joint.sum(2, keepdim=True)  # its distribution of classes differs from piece to piece only

    assert torch.allclose(of_moved, of_moved[:1].expand_as(of_moved), atol=1e-5)
    before = decompose(scores, labels, classes, distribution)
    after = decompose(moved.log(), labels, classes, of_moved[0].contiguous())
    torch.testing.assert_close(after.within, before.within, rtol=1e-4, atol=1e-4)
    assert (after.of_class - before.of_class).abs().max() > 1


@pytest.fixture
def model() -> PosBertForPreTraining:
    return PosBertForPreTraining(config())


@pytest.fixture
def of_vocabulary() -> Tensor:
    return class_distribution(np.random.default_rng(1).poisson(0.5, (VOCABULARY, OUTSIDE + 1)))


def test_tasks_within_classes_are_the_parts_of_the_raw_losses(
    model: PosBertForPreTraining, batch: Batch, of_vocabulary: Tensor
) -> None:
    raw = model(**batch).losses
    model.set_class_distribution(of_vocabulary, within_class=True)
    parts = model(**batch).losses

    assert model.tasks == parts.tasks == WITHIN_CLASS_TASKS
    assert parts.counts.tolist() == [*raw.counts[:9].tolist(), raw.counts[:9].sum().item(), raw.counts[9].item()]
    assert torch.equal(model.task_counts(batch), parts.counts)
    counted = batch["classes"] != OUTSIDE
    constant = of_vocabulary[batch["labels"][counted], batch["classes"][counted]].log().sum()
    torch.testing.assert_close(parts.sums[:10].sum() + constant, raw.sums[:9].sum(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(parts.sums[10], raw.sums[9])


def test_a_batch_without_words_has_no_class(model: PosBertForPreTraining, batch: Batch, of_vocabulary: Tensor) -> None:
    model.set_class_distribution(of_vocabulary, within_class=True)
    losses = model(**without_words(batch)).losses

    assert losses.counts[:10].tolist() == [0] * 10
    assert losses.sums[:10].tolist() == [0] * 10


def test_evaluation_reports_the_parts_and_the_number_of_pieces(
    model: PosBertForPreTraining, batch: Batch, of_vocabulary: Tensor
) -> None:
    model.set_class_distribution(of_vocabulary)
    assert model.train()(**batch).predictions is None
    scores = DecompositionScores(torch.device("cpu"))
    outputs = model.eval()(**batch)
    for _ in range(2):
        scores.update(outputs, batch)
    found = scores.compute()

    assert outputs.losses.tasks == TASKS
    means = (outputs.losses.sums / outputs.losses.counts)[: len(CLASSES)].tolist()
    for name, count, mean in zip(CLASSES, outputs.losses.counts.tolist(), means, strict=False):
        assert found[f"pieces/{name}"] == 2 * count
        if count == 0:
            assert f"raw/{name}" not in found
            continue
        assert found[f"raw/{name}"] == pytest.approx(mean, rel=1e-5)
        own = batch["classes"] == CLASSES.index(name)
        constant = of_vocabulary[batch["labels"][own], CLASSES.index(name)].log().mean().item()
        total = found[f"class/{name}"] + found[f"within/{name}"] + constant
        assert total == pytest.approx(found[f"raw/{name}"], rel=1e-4)


def test_the_saved_model_is_plain_bert(model: PosBertForPreTraining, of_vocabulary: Tensor) -> None:
    names = set(model.state_dict())
    model.set_class_distribution(of_vocabulary)
    assert set(model.state_dict()) == names
