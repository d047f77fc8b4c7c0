import pytest
import torch

from semisparse.train.data.augment import AUGMENTATIONS, MEAN, STD, augment, center_crop, normalize


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 3, 40, 40), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_shape_range_and_repeatability(images, kind):
    outputs = [augment(images, 32, kind, torch.Generator().manual_seed(seed)).float() for seed in (1, 1, 2)]
    assert outputs[0].shape == (16, 3, 32, 32)
    assert outputs[0].min() >= 0 and outputs[0].max() <= 255
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2]) == (kind == "none")


def test_flip_mirrors_about_half(images):
    out = augment(images.repeat(8, 1, 1, 1), 40, "flip", torch.Generator().manual_seed(0))
    source = images.repeat(8, 1, 1, 1)
    same = (out == source).flatten(1).all(1)
    mirrored = (out == source.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all() and 40 < same.sum() < 88


def test_shift_moves_by_whole_pixels_without_mirroring():
    image = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 16, 16] = 255
    out = augment(image, 32, "shift", torch.Generator().manual_seed(0))
    assert (out.flatten(1) == 255).sum(1).eq(3).all()
    rows = out[:, 0].amax(2).argmax(1)
    assert 12 <= rows.min() < 16 < rows.max() <= 20


def test_resized_crop_of_a_ramp_is_a_part_of_it():
    ramp = torch.arange(64, dtype=torch.uint8).repeat(64, 1).expand(32, 3, 64, 64)
    out = augment(ramp, 32, "resized-crop", torch.Generator().manual_seed(0))
    span = out[..., -1].mean((1, 2)) - out[..., 0].mean((1, 2))
    assert (span.abs() > 64 * 0.45 * 31 / 32).all() and (span.abs() <= 63).all()  # width >= sqrt(0.35 * 3/4)
    assert (span > 0).any() and (span < 0).any()
    assert torch.allclose(out[:, 0, 0], out[:, 0, -1])


def test_normalize_and_center_crop():
    images = torch.tensor(MEAN).view(1, 3, 1, 1).expand(2, 3, 6, 8)
    assert normalize(images).abs().max() < 1e-6
    out = normalize(images + torch.tensor(STD).view(1, 3, 1, 1))
    assert torch.allclose(out, torch.ones_like(out)) and out.is_contiguous(memory_format=torch.channels_last)
    x = torch.arange(48).view(1, 1, 6, 8)
    assert torch.equal(center_crop(x, 4), x[..., 1:5, 2:6])
