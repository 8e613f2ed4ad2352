import random

import numpy as np
import pytest
import torch
from torch import Tensor

from taskrobust.vision.data import Sample, TargetCollate
from taskrobust.vision.modalities import Depth, NormRgb, Rgb
from taskrobust.vision.transforms import Mixing

CLASSES = 7
LABELS = torch.tensor([0, 1, 2, 3, 3, 6])
SIZE = 12


def images() -> Tensor:
    return torch.randint(256, (6, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def expected_labels(share: float, smoothing: float) -> Tensor:
    """Share of the own label, the rest of the partner's, and a little of everything."""
    hard = np.eye(CLASSES)[LABELS] * (1 - smoothing) + smoothing / CLASSES
    return torch.from_numpy(share * hard + (1 - share) * hard[::-1]).float()


def test_mixup_weighs_images_and_labels_alike() -> None:
    pictures = images()
    for index in range(20):
        mixed, soft = Mixing(CLASSES, cutmix=0)(pictures, LABELS, (index, 0))
        first, last = pictures[0].double(), pictures[-1].double()
        share = (((mixed[0] - last) * (first - last)).sum() / (first - last).square().sum()).item()  # least squares
        own = pictures.double() * share + pictures.double().flip(0) * (1 - share)
        assert (mixed.double() - own).abs().max() < 1
        torch.testing.assert_close(soft, expected_labels(share, 0.1), atol=0.004, rtol=0)
        torch.testing.assert_close(soft.sum(1), torch.ones(6))


def test_cutmix_weighs_labels_by_the_area_that_is_left() -> None:
    pictures = images()
    shares = []
    for index in range(30):
        mixed, soft = Mixing(CLASSES, mixup=0, smoothing=0.2)(pictures, LABELS, (index, 0))
        own, partner = (mixed == pictures).all(1), (mixed == pictures.flip(0)).all(1)
        assert (own | partner).all()
        share = own[0].float().mean().item()
        assert all(one.float().mean().item() == pytest.approx(share) for one in own)
        rows, columns = partner[0].any(1), partner[0].any(0)
        assert partner[0].sum() == rows.sum() * columns.sum()  # a rectangle
        torch.testing.assert_close(soft, expected_labels(share, 0.2))
        shares.append(share)
    assert min(shares) < 0.5 < max(shares)


@pytest.mark.parametrize(("switch", "cut"), [(0.0, 0), (1.0, 40), (0.5, 20)])
def test_one_of_both_is_taken_with_the_probability_asked_for(switch: float, cut: int) -> None:
    pictures = images()
    mixing = Mixing(CLASSES, switch=switch)
    is_cut = 0
    for index in range(40):
        mixed, _ = mixing(pictures, LABELS, (index, 0))
        is_cut += bool(((mixed == pictures) | (mixed == pictures.flip(0))).all())
    assert is_cut == pytest.approx(cut, abs=8)


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    two, labels = torch.zeros(2, 3, 1, 1, dtype=torch.uint8), torch.tensor([0, 1])
    mixing = Mixing(2, mixup=0.8, cutmix=0, smoothing=0)
    shares = [mixing(two, labels, (index, 0))[1][0, 0].item() for index in range(500)]
    reference = np.random.default_rng(0).beta(0.8, 0.8, 100_000)
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    assert np.quantile(shares, levels) == pytest.approx(np.quantile(reference, levels), abs=0.07)


def test_a_mix_is_a_function_of_seed_batch_and_key_alone_and_leaves_generators_and_images_alone() -> None:
    pictures, mixing = images(), Mixing(CLASSES, seed=4)
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    first, soft = mixing(pictures, LABELS, (5, 1))
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.equal(pictures, images())
    mixing(pictures, LABELS, (6, 1))
    np.random.seed(0)
    again, soft_again = Mixing(CLASSES, seed=4)(pictures, LABELS, (5, 1))
    assert torch.equal(again, first)
    assert torch.equal(soft_again, soft)
    for other in (mixing(pictures, LABELS, (5, 2)), Mixing(CLASSES, seed=5)(pictures, LABELS, (5, 1))):
        assert not torch.equal(other[1], soft)


def test_what_cannot_be_mixed_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected an even number of images to mix, got a batch of 5"):
        Mixing(CLASSES)(images()[:5], LABELS[:5], (0, 0))
    with pytest.raises(ValueError, match=r"Expected labels from 0 to 4, got 6\. Set num_classes"):
        Mixing(5)(images(), LABELS, (0, 0))
    with pytest.raises(ValueError, match="Expected labels from 0 to 6, got -1"):
        Mixing(CLASSES)(images(), LABELS - 1, (0, 0))
    with pytest.raises(ValueError, match=r"Expected mixup or cutmix above 0, and neither below, got 0 and 0"):
        Mixing(CLASSES, mixup=0, cutmix=0)


# In batches


def samples() -> list[tuple[tuple[int, int], Sample]]:
    pairs = zip(images(), LABELS, strict=True)
    return [((index, 3), {"rgb": image, "label": label}) for index, (image, label) in enumerate(pairs)]


def test_a_batch_holds_maps_what_is_present_and_classes() -> None:
    modalities = {"rgb": Rgb(), "depth": Depth(), "norm_rgb": NormRgb()}
    several = samples()
    several[0][1]["depth"] = torch.ones(1, SIZE, SIZE)
    del several[1][1]["label"]
    batch = TargetCollate(modalities, SIZE)(several)
    assert list(batch) == ["rgb", "depth", "present", "label"]
    assert torch.equal(batch["rgb"], images())
    assert batch["depth"].sum((1, 2, 3)).tolist() == [SIZE**2, 0, 0, 0, 0, 0]
    assert batch["present"].tolist() == [[True, True]] + 5 * [[True, False]]
    assert batch["label"].tolist() == [0, -1, 2, 3, 3, 6]
    assert batch["label"].dtype == torch.int64


def test_a_mixed_batch_has_soft_labels_by_the_key_of_its_first_sample() -> None:
    mixing = Mixing(CLASSES)
    batch = TargetCollate({"rgb": Rgb()}, SIZE, mixing)(samples())
    mixed, soft = mixing(images(), LABELS, (0, 3))
    assert list(batch) == ["rgb", "present", "label", "soft_labels"]
    assert torch.equal(batch["rgb"], mixed)
    assert torch.equal(batch["soft_labels"], soft)
    assert torch.equal(batch["label"], LABELS)
    prepared = Rgb().prepare(batch["rgb"], batch["present"][:, 0], 4)
    assert prepared.values.shape == (6, 9, 48)


def test_of_a_pair_with_an_image_that_cannot_be_read_neither_counts() -> None:
    several = samples()
    del several[1][1]["rgb"]
    batch = TargetCollate({"rgb": Rgb()}, SIZE, Mixing(CLASSES))(several)
    assert batch["present"][:, 0].tolist() == [True, False, True, True, False, True]


def test_maps_besides_colors_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match=r"Expected a color image alone to mix, got \['rgb', 'depth'\]"):
        TargetCollate({"rgb": Rgb(), "depth": Depth()}, SIZE, Mixing(CLASSES))
    with pytest.raises(ValueError, match=r"Expected a color image alone to mix, got \['depth'\]"):
        TargetCollate({"depth": Depth()}, SIZE, Mixing(CLASSES))
