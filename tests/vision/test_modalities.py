import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as V2

from taskrobust.vision.modalities import Depth, Modality, NormRgb, Prepared, Rgb, SemSeg
from taskrobust.vision.modalities.base import from_patches, to_patches
from taskrobust.vision.modalities.semseg import VOID

PATCH = 8
EVERY = [Rgb(), Depth(), SemSeg(num_classes=6), NormRgb()]


@pytest.fixture(autouse=True)
def _seeded(_seed: None) -> None:
    pass


def here(batch: int) -> Tensor:
    return torch.ones(batch, dtype=torch.bool)


def packed(modality: Modality, batch: int = 3, size: int = 32) -> Tensor:
    if isinstance(modality, Rgb):
        return torch.randint(256, (batch, 3, size, size), dtype=torch.uint8)
    if isinstance(modality, Depth):
        return 3 * torch.rand(batch, 1, size, size) + 0.5
    assert isinstance(modality, SemSeg)
    side = size // modality.stride
    return torch.randint(modality.num_classes, (batch, side, side), dtype=torch.uint8)


def prediction(modality: Modality, batch: int = 3, patches: int = 16) -> Tensor:
    return torch.randn(batch, patches, modality.outputs(PATCH))


def depth_in_numpy(meters: np.ndarray) -> np.ndarray:
    """Standardized by the central 80 % of the known pixels, 0 where unknown."""
    known = np.sort(meters[meters > 0].astype(np.float64))
    tail = len(known) // 10
    central = known[tail : len(known) - tail]
    return np.where(meters > 0, (meters - central.mean()) / np.sqrt(central.var() + 1e-6), 0)


# Patches.


def test_patches_are_those_that_a_convolution_reads() -> None:
    maps, weight = torch.randn(2, 3, 16, 24), torch.randn(5, 3, 8, 8)
    patches, grid = to_patches(maps, 8)
    expected = F.conv2d(maps, weight, stride=8).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches @ weight.flatten(1).T, expected, rtol=1e-4, atol=1e-4)
    assert grid == (2, 3)


def test_patches_put_together_are_the_maps() -> None:
    maps = torch.randn(2, 3, 16, 24)
    assert torch.equal(from_patches(*to_patches(maps, 8), channels=3), maps)


def test_maps_that_do_not_divide_into_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected maps that divide into patches of 8, got maps of 16 by 20"):
        to_patches(torch.zeros(1, 3, 16, 20), 8)


# Files.


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
def test_colors_of_any_kind_become_rgb(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)).convert(mode)
    colors = Rgb().decode(image)
    assert isinstance(colors, tv_tensors.Image)
    assert colors.dtype == torch.uint8
    assert (colors.permute(1, 2, 0).numpy() == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize(("dtype", "mode"), [(np.uint16, "I;16"), (np.uint8, "L"), (np.int32, "I")])
def test_levels_of_depth_are_metres_by_the_unit(dtype: type, mode: str) -> None:
    levels = np.array([[0, 1, 200], [30, 40, 250]], dtype=dtype)
    image = Image.fromarray(levels)
    meters = Depth(unit=0.002).decode(image)
    assert image.mode == mode
    assert isinstance(meters, tv_tensors.Mask)
    assert meters.dtype == torch.float32
    torch.testing.assert_close(meters.as_subclass(Tensor), torch.from_numpy(levels * 0.002).float()[None])


def test_sixteen_bits_of_depth_keep_every_level() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    meters = Depth(unit=0.001).decode(Image.fromarray(levels))
    assert ((meters.numpy()[0] * 1000).round() == levels).all()


def test_depth_in_color_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected depth in one channel of 8 or 16 bits, got an image of mode 'RGB'"):
        Depth().decode(Image.new("RGB", (4, 4)))


def test_depth_without_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a unit above 0 meters, got 0"):
        Depth(unit=0)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_labels_are_classes(mode: str) -> None:
    image = Image.frombytes(mode, (4, 1), bytes([0, 3, 255, 5]))
    classes = SemSeg(num_classes=6).decode(image)
    assert isinstance(classes, tv_tensors.Mask)
    assert classes.dtype == torch.uint8
    assert classes.tolist() == [[[0, 3, VOID, 5]]]


def test_zero_becomes_void_and_the_other_labels_move_down() -> None:
    image = Image.frombytes("L", (4, 1), bytes([0, 1, 255, 6]))
    assert SemSeg(num_classes=6, reduce_zero_label=True).decode(image).tolist() == [[[VOID, 0, VOID, 5]]]


def test_another_label_can_be_void() -> None:
    image = Image.frombytes("L", (3, 1), bytes([0, 1, 5]))
    assert SemSeg(num_classes=6, void=0).decode(image).tolist() == [[[VOID, 1, 5]]]


@pytest.mark.parametrize(
    ("modality", "label", "message"),
    [
        (SemSeg(num_classes=6), 6, r"Expected labels of 6 classes or void \(255\), got the label 6"),
        (SemSeg(num_classes=6, reduce_zero_label=True), 7, r"of 6 classes after 0 or void \(255\), got the label 7"),
        (SemSeg(num_classes=6, void=0), 255, r"Expected labels of 6 classes or void \(0\), got the label 255"),
    ],
)
def test_a_label_that_is_no_class_is_refused(modality: SemSeg, label: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        modality.decode(Image.frombytes("L", (3, 1), bytes([0, 1, label])))


def test_all_255_classes_of_a_byte_can_be_used() -> None:
    image = Image.frombytes("L", (256, 1), bytes(range(256)))
    assert SemSeg(num_classes=255).decode(image).flatten().tolist() == list(range(256))


def test_labels_in_color_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected labels of 8 bits, got an image of mode 'RGB'"):
        SemSeg().decode(Image.new("RGB", (4, 4)))


@pytest.mark.parametrize("number", [0, 256])
def test_a_number_of_classes_that_bytes_cannot_hold_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"Expected num_classes from 1 to 255, as labels are bytes, got {number}"):
        SemSeg(num_classes=number)


@pytest.mark.parametrize("void", [-1, 256])
def test_a_void_label_that_is_no_byte_is_refused(void: int) -> None:
    with pytest.raises(ValueError, match=f"Expected a void label from 0 to 255, got {void}"):
        SemSeg(void=void)


@pytest.mark.parametrize("stride", [0, -4])
def test_a_stride_below_one_pixel_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"Expected a stride of at least 1 pixel, got {stride}"):
        SemSeg(stride=stride)


def test_the_last_class_after_zero_cannot_be_void() -> None:
    with pytest.raises(ValueError, match="Expected a void label that is no class, got 255, the last of 255 classes"):
        SemSeg(num_classes=255, reduce_zero_label=True)
    image = Image.frombytes("L", (256, 1), bytes(range(256)))
    classes = SemSeg(num_classes=255, reduce_zero_label=True, void=0).decode(image)
    assert classes.flatten().tolist() == [VOID, *range(255)]


# Batches.


def test_labels_are_packed_from_the_centers_of_the_grid() -> None:
    crop = tv_tensors.Mask(torch.arange(64).view(1, 8, 8).to(torch.uint8))
    assert SemSeg(stride=4).pack(crop).tolist() == [[18, 22], [50, 54]]


@pytest.mark.parametrize("modality", EVERY)
def test_what_stands_for_a_missing_map_looks_like_a_packed_one_and_is_known_nowhere(modality: Modality) -> None:
    image = Image.new("RGB" if isinstance(modality, Rgb) else "L", (48, 32))
    found, missing = modality.pack(V2.center_crop(modality.decode(image), [32, 32])), modality.missing(32)
    assert type(found) is type(missing) is Tensor
    assert (found.shape, found.dtype, found.is_contiguous()) == (missing.shape, missing.dtype, True)
    prepared = modality.prepare(missing[None], torch.zeros(1, dtype=torch.bool), PATCH)
    assert not prepared.valid.any()
    assert prepared.values.isfinite().all()


@pytest.mark.parametrize("modality", EVERY)
def test_maps_of_samples_that_lack_the_modality_are_known_nowhere(modality: Modality) -> None:
    prepared = modality.prepare(packed(modality), torch.tensor([True, False, True]), PATCH)
    assert prepared.valid[[0, 2]].all()
    assert not prepared.valid[1].any()


def test_colors_are_standardized() -> None:
    colors = packed(Rgb())
    prepared = Rgb().prepare(colors, here(3), PATCH)
    expected = V2.normalize(colors.float() / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    torch.testing.assert_close(from_patches(prepared.values, prepared.grid, channels=3), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unknown", [0.0, 0.3, 0.97])
def test_depth_is_standardised_by_the_central_eighty_percent_of_its_known_pixels(unknown: float) -> None:
    meters = packed(Depth()) ** 3
    meters[torch.rand_like(meters) < unknown] = 0
    prepared = Depth().prepare(meters, here(3), PATCH)
    expected = np.stack([depth_in_numpy(image) for image in meters.numpy()])
    values = from_patches(prepared.values, prepared.grid, channels=1)
    torch.testing.assert_close(values, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(from_patches(prepared.valid, prepared.grid, channels=1), meters > 0)


def test_depth_does_not_depend_on_unit_or_offset() -> None:
    meters = packed(Depth())
    prepared, other = (Depth().prepare(maps, here(3), PATCH) for maps in (meters, 7 * meters + 2))
    torch.testing.assert_close(other.values, prepared.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_depth_with_hardly_a_known_pixel_is_finite(known: int) -> None:
    meters = torch.zeros(1, 1, 16, 16)
    meters[0, 0, 0, :known] = 2.5
    prepared = Depth().prepare(meters, here(1), PATCH)
    assert (prepared.values == 0).all()
    assert prepared.valid.sum() == known


def test_void_is_embedded_as_zeros_and_classes_by_their_vectors() -> None:
    modality = SemSeg(num_classes=6, class_width=3)
    embedding = modality.embedding(width=4, patch_size=PATCH)
    labels = packed(modality)
    labels[0, :3] = VOID
    prepared = modality.prepare(labels, here(3), PATCH)

    vectors = torch.cat([embedding.classes.weight, torch.zeros(250, 3)])[labels.long()].permute(0, 3, 1, 2)
    weight = embedding.projection.weight.view(4, 2, 2, 3).permute(0, 3, 1, 2)
    expected = F.conv2d(vectors, weight, embedding.projection.bias, stride=2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(prepared.values), expected, rtol=1e-4, atol=1e-5)
    assert [parameter.numel() for parameter in embedding.parameters()] == [18, 48, 4]


@pytest.mark.parametrize("modality", EVERY)
def test_an_embedding_takes_patches_in_any_arrangement(modality: Modality) -> None:
    prepared = modality.prepare(packed(modality), here(3), PATCH)
    embedding = modality.embedding(12, PATCH)
    tokens = embedding(prepared.values)
    assert tokens.shape == (3, 16, 12)
    torch.testing.assert_close(embedding(prepared.values[1, 5]), tokens[1, 5])


def test_a_patch_that_the_grid_of_labels_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a patch size that is a multiple of the stride 4, got 6"):
        SemSeg().outputs(6)


# Losses.


def image_losses(modality: Modality, predicted: Tensor, target: Tensor) -> Tensor:
    """The loss of every place of maps [B, C, H, W], in image space."""
    if isinstance(modality, SemSeg):
        return F.cross_entropy(predicted, target[:, 0], reduction="none", ignore_index=VOID)[:, None]
    return (predicted - target).abs() if isinstance(modality, Depth) else (predicted - target) ** 2


def as_images(modality: Modality, predictions: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
    """Predictions and targets as maps, the former by PyTorch's own rearrangement of channel, row, column."""
    side = round(prepared.values.shape[-1] ** 0.5) if not isinstance(modality, Rgb) else PATCH
    cells = predictions.transpose(1, 2).unflatten(2, prepared.grid)
    channels = 3 if isinstance(modality, Rgb) else 1
    return F.pixel_shuffle(cells, side), from_patches(prepared.values, prepared.grid, channels)


@pytest.mark.parametrize("modality", [Rgb(), Depth(), SemSeg(num_classes=6)])
def test_sums_over_patches_are_those_of_the_losses_in_image_space(modality: Modality) -> None:
    maps = packed(modality)
    if not isinstance(modality, Rgb):
        maps[0, ..., :3] = modality.missing(32).flatten()[0]
    prepared = modality.prepare(maps, here(3), PATCH)
    predictions = prediction(modality)

    sums, numbers = modality.patch_losses(predictions, prepared)

    predicted, target = as_images(modality, predictions, prepared)
    losses, _ = to_patches(image_losses(modality, predicted, target), target.shape[-1] // prepared.grid[1])
    known = prepared.valid.expand_as(losses) if prepared.valid.shape[-1] == 1 else prepared.valid
    torch.testing.assert_close(sums, losses.where(known, 0).sum(-1), rtol=1e-4, atol=1e-4)
    assert torch.equal(numbers, known.sum(-1).float())


def test_colors_of_a_patch_are_standardised_with_the_unbiased_variance() -> None:
    prepared = Rgb().prepare(packed(Rgb()), here(3), PATCH)
    predictions = prediction(NormRgb())
    target = prepared.values.double()
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True, correction=1) + 1e-6).sqrt()
    sums, numbers = NormRgb().patch_losses(predictions, prepared)
    torch.testing.assert_close(sums, (predictions - target).square().sum(-1).float(), rtol=1e-4, atol=1e-3)
    assert (numbers == 3 * PATCH**2).all()


def test_a_patch_of_one_color_has_a_finite_standardised_target() -> None:
    prepared = Rgb().prepare(torch.full((1, 3, 16, 16), 7, dtype=torch.uint8), here(1), PATCH)
    sums, _ = NormRgb().patch_losses(torch.zeros(1, 4, 3 * PATCH**2), prepared)
    assert sums.isfinite().all()


@pytest.mark.parametrize("modality", EVERY)
def test_losses_are_float32_and_count_known_elements_only(modality: Modality) -> None:
    source = Rgb() if isinstance(modality, NormRgb) else modality
    prepared = source.prepare(packed(modality), torch.tensor([True, False, True]), PATCH)
    sums, numbers = modality.patch_losses(prediction(modality).bfloat16().requires_grad_(), prepared)
    assert sums.dtype == numbers.dtype == torch.float32
    assert sums.isfinite().all()
    assert torch.equal(numbers > 0, prepared.valid.any(-1))


# Pictures.


def test_the_predicted_classes_are_the_most_likely_ones() -> None:
    modality = SemSeg(num_classes=6)
    prepared = modality.prepare(packed(modality), here(3), PATCH)
    scores = F.one_hot(prepared.values, 6).transpose(-1, -2).flatten(-2).float()
    assert torch.equal(modality.predicted_values(scores, prepared), prepared.values)


def test_a_perfect_prediction_of_standardised_colors_looks_like_the_image() -> None:
    prepared = Rgb().prepare(packed(Rgb()), here(3), PATCH)
    centerd = prepared.values - prepared.values.mean(-1, keepdim=True)
    perfect = centerd / (prepared.values.var(-1, keepdim=True) + 1e-6).sqrt()
    values = NormRgb().predicted_values(perfect, prepared)
    torch.testing.assert_close(values, prepared.values, rtol=1e-4, atol=1e-4)


def test_the_picture_of_an_image_is_the_image() -> None:
    colors = packed(Rgb())
    prepared = Rgb().prepare(colors, here(3), PATCH)
    assert (Rgb().picture(prepared.values, prepared) == colors.permute(0, 2, 3, 1).numpy()).all()


@pytest.mark.parametrize("modality", EVERY)
def test_pictures_have_the_size_of_the_image(modality: Modality) -> None:
    source = Rgb() if isinstance(modality, NormRgb) else modality
    prepared = source.prepare(packed(modality), torch.tensor([True, False, True]), PATCH)
    for values in (prepared.values, modality.predicted_values(prediction(modality), prepared)):
        picture = modality.picture(values, prepared)
        assert picture.shape == (3, 32, 32, 3)
        assert picture.dtype == np.uint8


@pytest.mark.parametrize("modality", [Depth(), SemSeg(num_classes=6)])
def test_unknown_pixels_are_black_and_known_ones_are_not(modality: Modality) -> None:
    maps = packed(modality)
    maps[:, ..., : maps.shape[-1] // 2] = modality.missing(32).flatten()[0]
    prepared = modality.prepare(maps, here(3), PATCH)
    picture = modality.picture(prepared.values, prepared)
    assert (picture[:, :, :16] == 0).all()
    assert (picture[:, :, 16:] > 0).any(-1).all()
