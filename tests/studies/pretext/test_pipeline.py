import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from torch import Tensor, nn

from taskrobust.loss import MultiTaskLoss
from taskrobust.studies.pretext.generators import ClassImages
from taskrobust.studies.pretext.networks import CONVOLUTIONAL_FEATURES, convolutional_network, mlp_network
from taskrobust.studies.pretext.pipeline import PretextNetwork, PretextPipeline, Probe
from taskrobust.studies.pretext.processor import Processor
from taskrobust.studies.pretext.tasks import Colorization, PretextTask, Rotation, SplitHalf
from taskrobust.weighting import strategies


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return ClassImages(classes=4).sample(400, seed=0)


def tasks() -> list[PretextTask]:
    return [Rotation(), Colorization(), SplitHalf()]


def network(tasks: list[PretextTask], weighting: str = "softmax_minimax", epochs: int = 2) -> PretextNetwork:
    criterion = MultiTaskLoss([task.name for task in tasks], weighting)
    return PretextNetwork(
        convolutional_network(), CONVOLUTIONAL_FEATURES, tasks, criterion, epochs=epochs, batch_size=50
    )


def test_rotated_images_agree_with_their_labels(images: tuple[Tensor, Tensor]) -> None:
    turned, turns = Rotation().pairs(images[0], np.arange(400), epoch=0)
    for image, result, turn in zip(images[0], turned, turns.argmax(1).tolist(), strict=True):
        assert torch.equal(result, torch.rot90(image, turn, dims=(1, 2)))
    assert (turns.sum(0) > 70).all()


def test_rotations_depend_only_on_image_and_epoch(images: tuple[Tensor, Tensor]) -> None:
    index = np.arange(400)
    _, turns = Rotation().pairs(images[0], index, epoch=3)
    _, of_some = Rotation().pairs(images[0][50:60], index[50:60], epoch=3)
    _, of_next = Rotation().pairs(images[0], index, epoch=4)
    assert torch.equal(turns[50:60], of_some)
    assert 0.15 < (turns.argmax(1) == of_next.argmax(1)).float().mean() < 0.35


def test_gray_images_have_no_colors(images: tuple[Tensor, Tensor]) -> None:
    gray, chroma = Colorization().pairs(images[0], np.arange(400), epoch=0)
    assert (gray == gray[:, :1]).all()
    _, of_gray = Colorization().pairs(gray, np.arange(400), epoch=0)
    torch.testing.assert_close(of_gray, torch.zeros(400, 32))
    assert chroma.abs().mean() > 0.01


def test_right_half_is_hidden(images: tuple[Tensor, Tensor]) -> None:
    shown, hidden = SplitHalf().pairs(images[0], np.arange(400), epoch=0)
    changed = images[0].clone()
    changed[..., 8:] = 0.5
    assert torch.equal(SplitHalf().pairs(changed, np.arange(400), epoch=0)[0], shown)
    torch.testing.assert_close(hidden[:, 0], images[0][:, 0, :4, 8:12].mean((1, 2)))


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_each_task_has_labels_of_its_width_and_minimal_loss_at_them(task: PretextTask) -> None:
    images = torch.rand(10, 3, 32, 32)
    inputs, pretext = task.pairs(images, np.arange(10), epoch=0)
    assert (inputs.shape, pretext.shape) == (images.shape, (10, task.width))
    predictions = 50 * pretext if task.name == "rotation" else pretext  # logits
    torch.testing.assert_close(task.losses(predictions, pretext), torch.zeros(10))
    assert (task.losses(torch.zeros_like(pretext), pretext) > 0).all()


def test_training_decreases_the_risk_of_each_task(images: tuple[Tensor, Tensor]) -> None:
    before, after = (network(tasks(), epochs=epochs).fit(images[0][:200]).criterion.risks for epochs in (1, 5))
    assert all(after[task] < before[task] for task in before)


@pytest.mark.parametrize("weighting", sorted(set(strategies()) - {"Fixed", "Gramian"}))
def test_each_strategy_weights_the_pretext_tasks(weighting: str, images: tuple[Tensor, Tensor]) -> None:
    fitted = network(tasks(), weighting, epochs=1).fit(images[0][:100])
    assert set(fitted.criterion.weights) == {"rotation", "colorization", "split_half"}
    assert fitted.transform(images[0][:7]).shape == (7, CONVOLUTIONAL_FEATURES)
    assert fitted.predict(images[0][:7]).shape == (7, 4 + 32 + 24)


def test_weights_are_independent_of_the_units_of_the_losses(images: tuple[Tensor, Tensor]) -> None:
    class InUnit(Colorization):
        def losses(self, predictions: Tensor, pretext: Tensor) -> Tensor:
            return 1000 * super().losses(predictions, pretext)

    weights = [
        PretextNetwork(convolutional_network(), CONVOLUTIONAL_FEATURES, [Rotation(), task], epochs=2, batch_size=50)
        .fit(images[0][:100])
        .criterion.weights
        for task in (Colorization(), InUnit())
    ]
    for task in weights[0]:
        assert weights[1][task].item() == pytest.approx(weights[0][task].item(), rel=1e-3)


def test_unfitted_network_raises(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        network(tasks()).transform(images[0])


def test_pipeline_applies_the_processor(images: tuple[Tensor, Tensor]) -> None:
    processor = Processor(
        nn.Sequential(convolutional_network(), *mlp_network(CONVOLUTIONAL_FEATURES, [], 8, dtype=torch.float32)),
        steps=10,
        lr=2e-3,
        batch_size=50,
    )
    task = [Rotation()]
    trunk = mlp_network(8, [], 16, dtype=torch.float32)
    pipeline = PretextPipeline(PretextNetwork(trunk, 16, task, epochs=1, batch_size=50), processor)
    pipeline.fit(images[0][:200], (images[0][200:], images[1][200:]), (images[0][:60], images[1][:60]))
    torch.testing.assert_close(pipeline.transform(images[0]), trunk(processor.transform(images[0])).detach())
    assert (pipeline.predict(images[0]) == images[1]).float().mean().item() == pytest.approx(pipeline.score(*images))


def test_extra_samples_without_a_processor_raise(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="extra samples if and only if there is a processor"):
        PretextPipeline(network([Rotation()])).fit(images[0], images, images)


def test_fewer_images_than_a_batch_raise(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="at least one batch of 50 images, got 30"):
        network([Rotation()]).fit(images[0][:30])


def test_probe_scores_are_accuracy_and_r2() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(100, 5, generator=generator)
    classes = (features[:, 0] > 0).long()
    probe = Probe().fit(features, classes)
    assert probe.score(features, classes) == (probe.predict(features) == classes).float().mean()
    targets = features[:, :2] + 0.1 * torch.randn(100, 2, generator=generator)
    probe = Probe().fit(features, targets)
    assert probe.score(features, targets) == pytest.approx(r2_score(targets, probe.predict(features)), rel=1e-5)
